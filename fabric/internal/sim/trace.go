package sim

import (
	"fmt"
	"time"

	"github.com/zfab/zfab/fabric/internal/wire"
)

// log traces one event: step, simulated time, who, what.
func (w *world) log(n *node, format string, args ...any) {
	if w.trace == nil {
		return
	}
	fmt.Fprintf(w.trace, "%7d %14s  %-6s %s\n", w.counts.of[steps], w.now.Round(time.Microsecond), n, fmt.Sprintf(format, args...))
}

func (w *world) tracePlan() {
	if w.trace == nil {
		return
	}
	pl := &w.plan
	w.log(nil, "%d hosts, budget %d, heartbeat %v (ask after %d, dead after %d), resume window %v, lag %v, socket %d",
		pl.hosts, pl.budget, pl.interval, pl.pingTicks, pl.deadTicks, pl.window, pl.lag, pl.socket)
	for _, c := range pl.channels {
		w.log(nil, "channel %s: mark %v, messages of up to %d bytes", c.name, c.mark, c.largest)
	}
}

// logPacket traces a packet, record by record.
func (w *world) logPacket(from, to *node, what string, p []byte) {
	if w.trace == nil {
		return
	}
	who, way := from, "->"
	if what == "reads" {
		who, way = to, "<-"
	}
	other := to
	if who == to {
		other = from
	}
	var rec wire.Record
	for rest := p; len(rest) > 0; {
		next, err := wire.Next(rest, 0, &rec)
		if err != nil {
			w.log(who, "%s %s %s bad: %v", what, way, other, err)
			return
		}
		w.log(who, "%s %s %s %s", what, way, other, describeRecord(&rec))
		rest = next
	}
}

func describeRecord(r *wire.Record) string {
	switch r.Kind {
	case wire.KindHello:
		return fmt.Sprintf("hello of %s.%d, connection %d", r.Hello.Node, r.Hello.Incarnation, r.Hello.Connection)
	case wire.KindOpen:
		return fmt.Sprintf("open stream=%d channel=%s consumer=%d instance=%d", r.Stream, r.Text, r.Index, r.Instance)
	case wire.KindData:
		return fmt.Sprintf("data stream=%d producer=%d seq=%d count=%d bytes=%d", r.Stream, r.Producer, r.Seq, r.Count, r.Bytes)
	case wire.KindFragment:
		return fmt.Sprintf("fragment stream=%d producer=%d seq=%d offset=%d bytes=%d of %d", r.Stream, r.Producer, r.Seq, r.Offset, len(r.Body), r.Total)
	case wire.KindEnd:
		return fmt.Sprintf("end stream=%d producer=%d seq=%d", r.Stream, r.Producer, r.Seq)
	case wire.KindState:
		s := &r.State
		return fmt.Sprintf("state stream=%d epoch=%d next=%d+%d consumed=%d (%d bytes) limit=%d (%d bytes)",
			r.Stream, s.Epoch, s.Next, s.Offset, s.ConsumedMessages, s.ConsumedBytes, s.LimitMessages, s.LimitBytes)
	case wire.KindBacklog:
		g := &r.Backlog
		return fmt.Sprintf("backlog stream=%d epoch=%d end=%d (%d bytes) next=%d bytes flags=%04b",
			r.Stream, g.Epoch, g.EndMessages, g.EndBytes, g.NextSize, g.Flags)
	case wire.KindCancel, wire.KindReset:
		return fmt.Sprintf("%s stream=%d code=%d %s", r.Kind, r.Stream, r.Code, r.Text)
	case wire.KindBye:
		return fmt.Sprintf("bye code=%d %s", r.Code, r.Text)
	default:
		return fmt.Sprintf("%s %d", r.Kind, r.Nonce)
	}
}
