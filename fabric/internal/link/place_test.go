package link

import (
	"bytes"
	"testing"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// placeWorld is a world in which side 0 has a message of so many bytes under way.
func placeWorld(t *testing.T, size int) (*world, *testSend) {
	mark := flow.Mark{Messages: 10, Bytes: 1 << 20}
	w := newWorld(t, 1, mark)
	s := w.addStream(0, "x", 0, mark)
	w.connect()
	body := bytes.Repeat([]byte("zfab"), size/4)
	if err := s.out.TrySend(testSenders[0], body); err != nil {
		t.Fatal(err)
	}
	s.sent = append(s.sent, body)
	for range 10 {
		w.emit(1)
		for len(w.way[1]) > 0 {
			w.transfer(1)
		}
		w.emit(0)
		for len(w.way[0]) > 0 && len(w.way[0][0]) < 1000 {
			w.transfer(0)
		}
		if len(w.way[0]) > 0 {
			return w, s
		}
	}
	t.Fatal("nothing is under way")
	return nil, nil
}

// All of a large message can be read to its place, its beginning included.
func TestEveryFragmentIsPlaced(t *testing.T) {
	w, s := placeWorld(t, 256<<10)
	core, fragments := &w.side[1].core, 0
	for s.received == 0 {
		if len(w.way[0]) == 0 {
			w.emit(1)
			for w.transfer(1) {
			}
			if !w.emit(0) {
				t.Fatalf("nothing comes after %d fragments", fragments)
			}
		}
		p := w.way[0][0]
		if len(p) < 1000 {
			w.transfer(0)
			continue
		}
		w.way[0] = w.way[0][1:]
		dst := core.place(p[:64], len(p))
		if dst == nil {
			t.Fatalf("fragment %d has no place", fragments)
		}
		copy(dst, p[len(p)-len(dst):])
		core.placed(true)
		fragments++
		for _, d := range core.deliveries {
			d.stream.inbox.put(d.stream, d.item)
		}
		core.deliveries = core.deliveries[:0]
		w.consume(s)
	}
	if fragments < 4 {
		t.Errorf("only %d fragments", fragments)
	}
}

// A connection that ends in a message's first fragment leaves nothing of the
// message behind.
func TestCutInTheFirstFragment(t *testing.T) {
	w, s := placeWorld(t, 256<<10)
	p := w.way[0][0]
	core := &w.side[1].core
	if core.place(p[:64], len(p)) == nil {
		t.Fatal("the first fragment has no place")
	}
	chunk := core.placing.into
	core.placed(false)
	if core.in[0].partial != nil || chunk.refs != 0 {
		t.Errorf("the stream still has the message's memory, with %d references", chunk.refs)
	}
	w.cut()
	w.connect()
	for range 100 {
		for i := range w.side {
			w.emit(i)
			for w.transfer(i) {
			}
		}
		if w.consume(s); s.received == 1 {
			return
		}
	}
	t.Error("the message has not arrived after the cut")
}

// Who claims a message larger than this end takes gets no memory for it.
func TestNoPlaceForAMessageOverTheMaximum(t *testing.T) {
	w, _ := placeWorld(t, 256<<10)
	core := &w.side[1].core
	core.cfg.MaxMessage = 100 << 10
	if p := w.way[0][0]; core.place(p[:64], len(p)) != nil || core.in[0].partial != nil {
		t.Error("memory was taken")
	}
}
