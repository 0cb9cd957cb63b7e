package link

import "fmt"

// action is a kind, and in the low bits of which side or stream.
type action uint8

const (
	doSend    action = iota << 3 // a producer sends, or goes on with a Send that waited
	doConsume                    // a consumer asks for the next message, and so has handled the one before
	doGather                     // a side writes one record, as a packet
	doDeliver                    // the first packet under way from a side arrives
	doTick                       // time passes for a side, or for both
	doIdle                       // time passes, and streams that are idle have been so for long
	doCut                        // the connection breaks: what is written is lost, what is under way may arrive
	doNotice                     // a side notices; what did not arrive there by then never does
	doAttach                     // a side is on the new connection; the other comes later
	doRestart                    // a node begins a new life
	doClose                      // a consumer closes
	doDrain                      // a consumer drains
	doReopen                     // there is a consumer again

	both = 2 // sides
)

func (a action) kind() action { return a &^ 7 }
func (a action) which() int   { return int(a & 7) }

func (a action) String() string {
	name := [...]string{
		"send", "consume", "gather", "deliver", "tick", "idle", "cut", "notice", "attach", "restart", "close", "drain", "reopen",
	}[a>>3]
	switch {
	case a == doCut:
		return name
	case a == doTick|both:
		return name + " both"
	}
	return fmt.Sprintf("%s %d", name, a.which())
}

// actions appends what may happen now.
func (w *smallWorld) actions(list []action) []action {
	add := func(may bool, a action, of int) {
		if may {
			list = append(list, a|action(of))
		}
	}
	for i, s := range w.streams {
		add(w.maySend(s), doSend, i)
		add(w.mayConsume(s), doConsume, i)
		add(s.shut, doReopen, i)
		add(w.closes > 0 && !s.shut && !s.drains, doClose, i)
		add(w.closes > 0 && !s.shut && !s.drains, doDrain, i)
	}
	for i := range w.side {
		add(w.mayGather(i), doGather, i)
		add(w.mayDeliver(i), doDeliver, i)
		add(w.up[i], doTick, i)
		add(w.up[i], doIdle, i)
		add(w.up[i] && w.broken, doNotice, i)
		add(w.mayAttach(i), doAttach, i)
		add(w.restarts > 0, doRestart, i)
	}
	add(w.up[0] && w.up[1], doTick, both)
	add(w.cuts > 0 && (w.up[0] || w.up[1]) && !w.broken, doCut, 0)
	return list
}

func (w *smallWorld) maySend(s *smallStream) bool {
	if s.waiting != nil {
		return len(s.waiting.w.ready) > 0
	}
	return s.left > 0
}

func (w *smallWorld) mayConsume(s *smallStream) bool {
	return !s.shut && (s.in.size >= 0 || s.in.cur.stream != nil || s.in.pos < len(s.in.taken) || len(s.in.items) > 0)
}

func (w *smallWorld) mayGather(i int) bool {
	return w.up[i] && w.side[i].core.busy() && (w.broken || len(w.way[i]) < w.cfg.underway)
}

func (w *smallWorld) mayDeliver(i int) bool { return w.up[1-i] && len(w.way[i]) > 0 }

// mayAttach: a new connection begins when both sides have left the one before.
func (w *smallWorld) mayAttach(i int) bool { return !w.up[i] && !w.broken }

// fair is the action by which everything comes to its end if it is chosen again
// and again: nothing breaks, and whoever can do something gets his turn, but for
// the consumer of the stalled stream (-1 for none). Immediate is false when
// nothing but time can help.
func (w *smallWorld) fair(stalled int) (a action, immediate bool) {
	for i := range w.side {
		switch {
		case w.broken && w.up[i]:
			return doNotice | action(i), true
		case w.mayAttach(i):
			return doAttach | action(i), true
		}
	}
	for i := range w.side {
		if w.mayDeliver(i) {
			return doDeliver | action(i), true
		}
	}
	for i, s := range w.streams {
		switch {
		case s.shut:
			return doReopen | action(i), true
		case i != stalled && w.mayConsume(s):
			return doConsume | action(i), true
		}
	}
	for i := range w.side {
		if w.mayGather(i) {
			return doGather | action(i), true
		}
	}
	for i, s := range w.streams {
		if w.maySend(s) {
			return doSend | action(i), true
		}
	}
	return doTick | both, false
}
