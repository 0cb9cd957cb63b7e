package sim

import (
	"fmt"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// said counts the records of control that nodes send while all is quiet.
type said struct {
	listening bool
	records   map[*peer]int
}

// quiet makes sure that nothing goes on for ever, once all is done: that there
// is a time in which nodes say nothing but that they live, and lend nothing to
// streams that are idle. Credit goes back after 10 ticks, so it is not at once.
func (w *world) quiet() {
	const times, ticks = 6, 10
	loud := ""
	for range times {
		if w.failure != nil {
			return
		}
		w.said = said{true, make(map[*peer]int)}
		w.ticks(ticks)
		w.said.listening = false
		if loud = w.loud(ticks); loud == "" {
			loud = w.lending()
		}
		if loud == "" {
			return
		}
	}
	w.fail("%s, although all is done", loud)
}

// loud is who has said too much in so many ticks.
func (w *world) loud(ticks int) string {
	for _, n := range w.nodes {
		for _, p := range n.peers {
			if n.gone || p == nil {
				continue
			}
			most := 0
			if w.stalls() {
				// A stream that is blocked says so with every tick, and is answered.
				most = 2 * ticks * (len(p.sends) + len(p.recvs))
			}
			if got := w.said.records[p]; got > most {
				return fmt.Sprintf("%s tells %s %d things in %d ticks", n, p.host.name, got, ticks)
			}
		}
	}
	return ""
}

// lending is a stream that is lent memory although it is idle.
func (w *world) lending() string {
	for _, k := range w.intakes {
		n := k.peer.node
		if n.gone || n.leaving || k.given || k.over || k.peer.end == nil || k.consumer.stalled || len(k.pair.ledgers) == 0 {
			continue
		}
		if v := k.r.View(); v.Window() > 0 {
			return fmt.Sprintf("%s is idle, and is lent %d bytes", k, v.Window())
		}
	}
	return ""
}

// ticks lets so many heartbeats pass on every node.
func (w *world) ticks(n int) {
	var until []int
	for _, o := range w.nodes {
		until = append(until, o.ticks+n)
	}
	w.until(never, func() bool {
		for i, o := range w.nodes[:len(until)] {
			if !o.gone && o.ticks < until[i] {
				return false
			}
		}
		return true
	})
}

func (w *world) stalls() bool {
	for _, k := range w.intakes {
		if k.consumer.stalled {
			return true
		}
	}
	return false
}

// inspect looks at what a node writes: control passes before data, and in the
// quiet there is none.
// It reports whether there are messages.
func (w *world) inspect(e *end, list [][]byte) (data bool) {
	var rec wire.Record
	for _, p := range list {
		for rest := p; len(rest) > 0; {
			next, err := wire.Next(rest, 0, &rec)
			if err != nil {
				w.fail("%s writes a bad packet: %v", e.node, err)
				return data
			}
			rest = next
			switch rec.Kind {
			case wire.KindData, wire.KindFragment, wire.KindEnd:
				data = true
				continue
			case wire.KindBacklog:
				// Streams that were found to be blocked, or asked for an
				// acknowledgement, say so behind their data.
			default:
				if data {
					w.fail("%s writes a %s record behind data", e.node, rec.Kind)
				}
			}
			if w.said.listening && rec.Kind != wire.KindPing && rec.Kind != wire.KindPong {
				w.said.records[e.peer]++
			}
		}
	}
	return data
}
