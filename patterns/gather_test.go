package patterns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func openGathererOf[T any](t testing.TB, n *fabric.Node, cfg GathererConfig[T]) *Gatherer[T] {
	t.Helper()
	cfg.Channel = "results"
	g, err := OpenGatherer(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, g.Close()) })
	return g
}

func openContributorOf[T any](t testing.TB, n *fabric.Node, cfg ContributorConfig[T]) *Contributor[T] {
	t.Helper()
	cfg.Channel = "results"
	c, err := OpenContributor(testContext(t), n, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// A thousand streams and more end at one consumer. What is lent to them stays within
// the node's budget, each gets its share, and nothing is lost or comes twice.
func TestGatherIncast(t *testing.T) {
	values := 160
	if raceEnabled {
		values = 20 // of which no share is taken: the detector slows some goroutines more than others
	}
	incast(t, 2<<20, fabric.HighWaterMark{Bytes: 2 << 10}, values)
}

// The same where all streams together may hold 32 times the budget: beyond it goes no
// more than a message of each.
func TestGatherIncastBeyondBudget(t *testing.T) {
	incast(t, 64<<10, fabric.HighWaterMark{Bytes: 2 << 10}, 10)
}

func incast(t *testing.T, budget int64, mark fabric.HighWaterMark, values int) {
	const nodes, each, lanes, size = 16, 64, 64, 250
	const streams = nodes * each
	ctx, dir := testContext(t), directory.NewRegistry()
	node := openNodeOf(t, fabric.Config{Name: "g", Directory: dir, MemoryBudget: budget})
	g := openGathererOf(t, node, GathererConfig[[]byte]{Lanes: lanes, Contributors: streams, HighWaterMark: mark})
	var sending sync.WaitGroup
	for i := range nodes {
		n := openNode(t, dir, fmt.Sprint("n", i))
		sending.Go(func() {
			var all []*Contributor[[]byte]
			for range each {
				// What they have to send they have room for, so that all have something waiting.
				// They end with their nodes.
				c, err := OpenContributor(ctx, n, ContributorConfig[[]byte]{Channel: "results", HighWaterMark: fabric.HighWaterMark{Bytes: 1 << 20}})
				if err != nil {
					t.Error(err)
					return
				}
				all = append(all, c)
			}
			for _, c := range all {
				sending.Go(func() {
					body := make([]byte, size)
					for n := range values {
						binary.BigEndian.PutUint32(body, uint32(n))
						if err := c.Send(ctx, body); err != nil {
							t.Error(err)
							return
						}
					}
					check(t, c.Finish(ctx))
				})
			}
		})
	}
	sending.Wait()
	if t.Failed() {
		t.FailNow()
	}
	got := make(map[fabric.Address]uint32, streams)
	total, most := 0, int64(0)
	sample := func() {
		st := node.Stats()
		held := uint64(0)
		for _, s := range st.Streams {
			if s.Receiving {
				held += s.DepthBytes
			}
		}
		most = max(most, st.MemoryLent)
		if bound := budget + streams*(size+headRoom); st.MemoryLent > bound || int64(held) > bound {
			t.Errorf("%d bytes are lent, %d held; the bound is %d", st.MemoryLent, held, bound)
		}
	}
	fair := int64(streams)*mark.Bytes == budget && !raceEnabled
	waiting := func() bool {
		n := 0
		for _, s := range node.Stats().Streams {
			if s.Receiving && s.Depth >= 4 {
				n++
			}
		}
		return n == streams
	}
	for v, err := range g.Values(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if fair && total < streams*values/4 {
			if total%(4*streams) == 0 {
				await(t, "something of each stream to wait here", waiting)
			}
			for total%lanes == 0 && len(g.core.offers) < lanes-1 && ctx.Err() == nil {
				runtime.Gosched() // until all lanes have offered what they have, but that of v
			}
		}
		if n := binary.BigEndian.Uint32(v.Value); n != got[v.Source] || len(v.Value) != size {
			t.Fatalf("%s: value %d, want %d", v.Source, n, got[v.Source])
		}
		got[v.Source]++
		if total++; total%2_000 == 0 {
			sample()
		}
		if fair && total == streams*values/4 {
			shares := slices.Sorted(maps.Values(got))
			least, greatest, mean := shares[0], shares[len(shares)-1], uint32(values/4)
			t.Logf("when a stream should have had %d values, the least had %d and the greatest %d", mean, least, greatest)
			if len(shares) != streams || least < mean/2 || greatest > 2*mean {
				t.Errorf("%d streams had %d to %d values, the mean is %d", len(shares), least, greatest, mean)
			}
		}
	}
	if total != streams*values {
		t.Errorf("%d values, want %d", total, streams*values)
	}
	seen := make(map[string]int)
	for _, s := range node.Stats().Streams {
		if s.Receiving && s.Peer != "g" {
			seen[s.Peer]++
		}
	}
	if st := g.Stats(); st.Finished != streams || st.Values != uint64(streams*values) || st.Lost != 0 || len(seen) != nodes {
		t.Errorf("%+v, %v", st, seen)
	}
	t.Logf("%d streams, %d bytes lent at most, of %d", streams, most, budget)
}

// Contributors that share a lane share a stream, and nobody's values are mixed up.
func TestGatherFewLanes(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	g := openGathererOf(t, openNode(t, dir, "g"), GathererConfig[int]{Lanes: 2, Contributors: 12})
	for i := range 3 {
		n := openNode(t, dir, fmt.Sprint("n", i))
		var all []*Contributor[int]
		for range 4 {
			all = append(all, openContributorOf(t, n, ContributorConfig[int]{}))
		}
		for _, c := range all {
			for v := range 50 {
				check(t, c.Send(ctx, v))
			}
			if c.Sent() != 50 {
				t.Errorf("%d were sent", c.Sent())
			}
			check(t, c.Drain(ctx))
			if err := c.Send(ctx, 1); err != fabric.ErrClosed {
				t.Error(err)
			}
		}
	}
	got := make(map[fabric.Address]int)
	for v, err := range g.Values(ctx) {
		if err != nil || v.Value != got[v.Source] {
			t.Errorf("%+v, %v; want %d", v, err, got[v.Source])
		}
		got[v.Source]++
	}
	if len(got) != 12 {
		t.Errorf("%v", got)
	}
	for i := range 2 {
		if _, err := g.Receive(ctx); err != fabric.ErrEnd {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A node that is lost is told once, whatever lanes it had, and the end says who is
// missing. One that comes again may be lost again.
func TestGatherNodeLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	g := openGathererOf(t, openNode(t, dir, "g"), GathererConfig[int]{Lanes: 4, Contributors: 6})
	losses := 0
	for life := range 2 {
		dies := openNode(t, dir, "dies")
		for i := range 4 {
			c, err := OpenContributor(ctx, dies, ContributorConfig[int]{Channel: "results"})
			check(t, err)
			check(t, c.Send(ctx, i))
			if i == 0 {
				check(t, c.Finish(ctx))
			}
			check(t, c.target.Flush(ctx))
		}
		for range 4 {
			if _, err := g.Receive(ctx); err != nil {
				t.Error(err)
			}
		}
		await(t, "it to have finished", func() bool {
			if _, err := g.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("life %d: %v", life, err)
			}
			return g.Stats().Finished == life+1
		})
		check(t, dies.Close())
		if _, err := g.Receive(ctx); lostPeer(err) == nil || lostPeer(err).Node != "dies" {
			t.Fatalf("life %d: %v", life, err)
		}
		losses++
		if _, err := g.Receive(shortContext(t)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("life %d is told twice: %v", life, err)
		}
	}
	c := openContributorOf(t, openNode(t, dir, "lives"), ContributorConfig[int]{})
	check(t, c.Finish(ctx))
	var e *UnfinishedError
	if _, err := g.Receive(ctx); !errors.As(err, &e) || len(e.Unfinished) != 3 || e.Finished != 3 || e.Unfinished[0].Node != "dies" {
		t.Errorf("%v", err)
	}
	if st := g.Stats(); st.Lost != 3 || st.Contributors != 0 || losses != 2 {
		t.Errorf("%+v", st)
	}
}

func TestGatherBadInput(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	node := openNode(t, dir, "g")
	if _, err := OpenContributor(shortContext(t), node, ContributorConfig[int]{Channel: "results"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a gatherer: %v", err)
	}
	g := openGathererOf(t, node, GathererConfig[reading]{Lanes: 1})
	c := openContributorOf(t, node, ContributorConfig[string]{Codec: failing{}})
	var codec *CodecError
	for _, v := range []string{"fails", "panics"} {
		if err := c.Send(ctx, v); !errors.As(err, &codec) || codec.Decoding {
			t.Error(err)
		}
	}
	check(t, c.Send(ctx, "another type"))
	if v, err := g.Receive(ctx); !errors.As(err, &codec) || v.Source != c.Address() {
		t.Errorf("%v", err)
	}
	stranger, err := node.Producer(ctx, "results", fabric.ProducerConfig{})
	check(t, err)
	records := [][]byte{nil, []byte("hello"), appendRecord(nil, kindShare, 1), appendRecord(nil, kindLast), appendRecord(nil, 99)}
	for _, r := range records {
		check(t, stranger.SendAll(ctx, r))
		var record *RecordError
		if _, err := g.Receive(ctx); !errors.As(err, &record) || record.From != stranger.Address() {
			t.Error(err)
		}
	}
	good := openContributorOf(t, node, ContributorConfig[reading]{})
	check(t, good.Send(ctx, aReading))
	if v, err := g.Receive(ctx); err != nil || v.Value != aReading {
		t.Errorf("%+v, %v", v, err)
	}
	if st := g.Stats(); st.Undecodable != 1 || st.Malformed != uint64(len(records)) || st.Values != 2 {
		t.Errorf("%+v", st)
	}
	if _, err := OpenGatherer(ctx, node, GathererConfig[int]{Channel: "results", Lanes: 1}); !errors.Is(err, fabric.ErrIndexTaken) {
		t.Error(err)
	}
	for _, cfg := range []GathererConfig[int]{{Lanes: -1}, {Lanes: maxLanes + 1}, {Contributors: -1}, {HighWaterMark: fabric.HighWaterMark{Bytes: -1}}} {
		cfg.Channel = "other"
		if _, err := OpenGatherer(ctx, node, cfg); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	second := openGathererOf(t, openNode(t, dir, "g2"), GathererConfig[int]{Lanes: 1})
	await(t, "the second gatherer to be refused", func() bool {
		c, err := OpenContributor(ctx, node, ContributorConfig[int]{Channel: "results"})
		if err == nil {
			check(t, c.Close())
		}
		return errors.Is(err, ErrSeveralGatherers)
	})
	check(t, second.Close())
}

// A gatherer that drains has what was sent; one that closes ends at once.
func TestGatherDrainsAndCloses(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	g := openGathererOf(t, openNode(t, dir, "g"), GathererConfig[int]{})
	c := openContributorOf(t, openNode(t, dir, "n"), ContributorConfig[int]{})
	for n := range 100 {
		check(t, c.Send(ctx, n))
	}
	var work sync.WaitGroup
	work.Go(func() { check(t, g.Drain(ctx)) })
	n := 0
	for v, err := range g.Values(ctx) {
		if err != nil || v.Value != n {
			t.Errorf("%+v, %v; want %d", v, err, n)
		}
		n++
	}
	work.Wait()
	if n != 100 {
		t.Errorf("%d values", n)
	}
	await(t, "the contributor to notice", func() bool { return errors.Is(c.Send(ctx, 1), fabric.ErrNoConsumer) })
	check(t, c.Close())
	closes := openGathererOf(t, openNode(t, dir, "g2"), GathererConfig[int]{})
	c2 := openContributorOf(t, openNode(t, dir, "n2"), ContributorConfig[int]{})
	check(t, c2.Send(ctx, 1))
	check(t, closes.Close())
	if _, err := closes.Receive(ctx); err != fabric.ErrClosed {
		t.Error(err)
	}
	await(t, "the contributor to notice", func() bool { return c2.Send(ctx, 1) != nil })
}

// A gathering through links that are cut every 200 ms.
func TestGatherThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	const nodes, each = 3, 4
	g := openGathererOf(t, openNode(t, dir, "g"), GathererConfig[int]{Lanes: 4, Contributors: nodes * each})
	var work sync.WaitGroup
	var stops []func() int
	sent := make([]int, nodes*each)
	for i := range nodes {
		relay := newRelay(t, dir) // the gatherer's node dials the contributors'
		n := openRelayed(t, relay, fabric.Config{Name: fmt.Sprint("n", i)})
		for k := range each {
			c := openContributorOf(t, n, ContributorConfig[int]{})
			work.Go(func() {
				for began := time.Now(); time.Since(began) < time.Second; {
					check(t, c.Send(ctx, sent[i*each+k]))
					sent[i*each+k]++
				}
				check(t, c.Drain(ctx))
			})
		}
		stops = append(stops, relay.cutEvery(200*time.Millisecond))
	}
	got, total := make(map[fabric.Address]int), 0
	for v, err := range g.Values(ctx) {
		if err != nil || v.Value != got[v.Source] {
			t.Errorf("%+v, %v; want %d", v, err, got[v.Source])
			break
		}
		got[v.Source]++
		total++
	}
	work.Wait()
	want := 0
	for _, n := range sent {
		want += n
	}
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	if total != want || cuts < 8 {
		t.Errorf("%d values of %d, %d cuts", total, want, cuts)
	}
	t.Logf("%d values through %d cuts", total, cuts)
}

// BenchmarkGather is values of 64 bytes from 64 contributors at four nodes.
func BenchmarkGather(b *testing.B) {
	ctx, dir := context.Background(), directory.NewRegistry()
	const nodes, each = 4, 16
	g := openGathererOf(b, openNode(b, dir, "g"), GathererConfig[[]byte]{Contributors: nodes * each})
	var work sync.WaitGroup
	let := make(chan struct{})
	for i := range nodes {
		n := openNode(b, dir, fmt.Sprint("n", i))
		for range each {
			c := openContributorOf(b, n, ContributorConfig[[]byte]{})
			work.Go(func() {
				<-let
				body := make([]byte, 64)
				for range b.N/(nodes*each) + 1 {
					check(b, c.Send(ctx, body))
				}
				check(b, c.Finish(ctx))
			})
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	close(let)
	for _, err := range g.Values(ctx) {
		check(b, err)
	}
	work.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "values/s")
}
