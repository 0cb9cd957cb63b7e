package link

import (
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// What one system call gets is wide only for large messages that are alone, on a connection that takes them at once.
func TestWideBatches(t *testing.T) {
	const narrow, slack = fullBatch + 64<<10, 4 << 10
	for _, tt := range []struct {
		name  string
		size  int // of messages
		fast  bool
		other bool // another stream has such messages, too
		most  int  // bytes that a batch may be
		wide  bool
	}{
		{"large and alone", 1 << 20, true, false, wideBatch + slack, true},
		{"a slow connection", 1 << 20, false, false, narrow, false},
		{"another stream", 1 << 20, true, true, narrow, false},
		{"of one fragment", 64 << 10, true, false, narrow, false},
		{"small", 100, true, false, narrow, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mark := flow.Mark{Messages: 1 << 16, Bytes: 8 << 20}
			w := newWorld(t, 1, mark)
			w.addStream(0, "x", 0, mark)
			if tt.other {
				w.addStream(0, "x", 1, mark)
			}
			w.connect()
			core := &w.side[0].core
			largest := 0
			for range 200 {
				for _, s := range w.sends {
					for len(s.sent) < 1<<14 && s.out.TrySend(testSenders[0], noise[:tt.size]) == nil {
						s.sent = append(s.sent, noise[:tt.size])
					}
				}
				w.emit(1)
				for w.transfer(1) {
				}
				core.fast = tt.fast
				waiting := core.active
				w.emit(0)
				if tt.other {
					waiting = min(waiting, core.active) // both, all the time
				}
				batch := 0
				for _, p := range w.way[0] {
					batch += len(p)
				}
				if waiting == len(w.sends) {
					largest = max(largest, batch)
				}
				for w.transfer(0) {
					if w.lost {
						w.cut()
						w.connect()
					}
				}
				for _, s := range w.sends {
					for w.consume(s) {
					}
				}
			}
			if largest == 0 || largest > tt.most || tt.wide != (largest > narrow) {
				t.Errorf("the largest batch has %d bytes", largest)
			}
			for i, s := range w.sends {
				if s.received == 0 {
					t.Errorf("nothing has come on stream %d", i)
				}
			}
		})
	}
}
