package link

import (
	"context"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/zfab/zfab/fabric/internal/flow"
)

// heapInUse is what is reachable, in bytes.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the first one lets pools go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// 10,000 idle streams on one link, opened over a connection, cost at most
// 2 MiB: at either end if they are new, and at either end if each has carried a
// message. The consumers, of which each has such a stream on every link, are
// there before.
func TestIdleStreamsMemory(t *testing.T) {
	const (
		streams = 10_000
		most    = 2 << 20
	)
	mark := flow.Mark{Messages: 1 << 16, Bytes: 4 << 20}
	producer, consumer := pair(t, "tcp://127.0.0.1:0", mark)
	inboxes := make([]*Inbox, streams)
	channel := &Flow{Channel: "x", Mark: mark}
	for i := range inboxes {
		inboxes[i] = NewInbox(channel, i, nil)
	}
	sends := make([]*SendStream, streams)

	before := heapInUse()
	for i := range sends {
		sends[i] = producer.Stream("x", i, mark)
	}
	atProducer := heapInUse() - before
	for _, in := range inboxes {
		consumer.Receive(in)
	}
	bound := func() bool {
		producer.mu.Lock()
		defer producer.mu.Unlock()
		for _, s := range sends {
			if s.flags&(sendBound|sendRewind) != sendBound {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !bound() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the streams were not opened")
		}
	}
	both := heapInUse() - before
	// Labels are dense, so the producer's table of them costs 8 bytes each, and
	// up to a quarter more for its growth: that was made with the opens.
	producer.mu.Lock()
	table := int64(cap(producer.core.out)) * 8
	producer.mu.Unlock()
	atProducer += table
	atConsumer := both - atProducer
	t.Logf("%d idle streams, new: %d bytes at the producer's end, %d at the consumer's, %d at both", streams, atProducer, atConsumer, both)
	if atProducer > most || atConsumer > most {
		t.Errorf("more than %d bytes at one end", most)
	}

	ended, end := context.WithCancel(ctx)
	end()
	for i, s := range sends {
		if err := s.Send(ctx, testSenders[0], []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := inboxes[i].Next(ctx); err != nil {
			t.Fatal(err)
		}
		inboxes[i].Next(ended) // which handles the message
		if err := s.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// What a consumer keeps to take messages with is not the streams'.
	kept := int64(0)
	for _, in := range inboxes {
		in.mu.Lock()
		kept += int64(cap(in.items)+cap(in.taken)) * int64(unsafe.Sizeof(item{}))
		in.mu.Unlock()
	}
	used := heapInUse() - before
	t.Logf("each used once: %d bytes at both ends, and %d that the consumers keep", used-kept, kept)
	if used-kept > 2*most {
		t.Errorf("%d bytes at both ends, more than twice %d", used-kept, most)
	}
	runtime.KeepAlive(inboxes)
	runtime.KeepAlive(sends)
}
