package fabric

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// heapInUse is what is reachable, in bytes.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the first one lets pools go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// heapSys is what the heap has taken from the system, in bytes.
func heapSys() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys)
}

// stacks is what goroutines take, in bytes.
func stacks() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.StackInuse)
}

// A link on which nothing happens costs its process at most 24 KiB, heap and
// stacks together. One node in the middle has a link over TCP to each of 200
// others, which are here too, so what grows is both ends of each link.
func TestIdleLinkMemory(t *testing.T) {
	const (
		links = 200
		most  = 24 << 10
	)
	ctx := testContext(t)
	dir := directory.NewRegistry()
	middle := openWith(t, Config{Name: "middle", Directory: dir})
	// The channels' and the nodes' own cost is not the links': both are there
	// before. Only then the middle's producer makes all others dial.
	others := make([]*Node, links)
	consumers := make([]*Consumer, links)
	for i := range others {
		others[i] = openWith(t, Config{Name: fmt.Sprintf("n%d", i), Directory: dir})
		consumers[i] = newConsumer(t, others[i], "x", ConsumerConfig{})
	}
	heap, stack := heapInUse(), stacks()
	p := newProducer(t, middle, "x", ProducerConfig{})
	if err := p.WaitConsumers(ctx, links); err != nil {
		t.Fatal(err)
	}
	if err := p.SendAll(ctx, []byte("each has been used")); err != nil {
		t.Fatal(err)
	}
	for _, c := range consumers {
		if _, err := c.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		c.Receive(ended) // which handles the message
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	up := 0
	for _, l := range middle.Stats().Links {
		if l.Up {
			up++
		}
	}
	if up != links {
		t.Fatalf("%d links are up", up)
	}
	heap, stack = heapInUse()-heap, stacks()-stack
	each := (heap + stack) / (2 * links)
	t.Logf("an idle link's end: %d bytes, %d of heap and %d of stacks", each, heap/(2*links), stack/(2*links))
	if raceEnabled {
		t.Skip("the race detector changes the sizes of stacks")
	}
	if each > most {
		t.Errorf("an idle link costs %d bytes in its process, more than %d", each, most)
	}
}
