package patterns

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// With at most once a lost worker's jobs are lost, and counted.
func TestPipelineAtMostOnceCountsWhatIsLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{Delivery: AtMostOnce})
	dies := openPullerOf(t, openNode(t, dir, "dies"), PullerConfig[int]{InFlight: 4})
	for i := range 4 {
		check(t, p.Push(ctx, i))
	}
	for range 3 { // two are taken, one is being worked on, one is on its way
		check(t, next(t, dies).Ack())
	}
	await(t, "the worker's word", func() bool { return p.Stats().Settled == 2 })
	check(t, dies.Close())
	await(t, "the loss", func() bool { return p.Stats().Lost == 2 })
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	check(t, p.Push(ctx, 4))
	if j := next(t, w); j.Value != 4 || j.Redelivered() {
		t.Errorf("%+v", j)
	}
}

// What a pusher had stored at a worker's node when it drained is received, although the
// pusher is gone by then: also if its answer to the worker's hello is received so late.
func TestPipelineAtMostOnceAfterItsPusher(t *testing.T) {
	for _, early := range []bool{false, true} {
		ctx, dir := testContext(t), directory.NewRegistry()
		w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{InFlight: 8, Pushers: 1})
		p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[int]{Delivery: AtMostOnce})
		const jobs = 8
		for i := range jobs {
			check(t, p.Push(ctx, i))
		}
		got := 0
		if early {
			if j := next(t, w); j.Value != got {
				t.Errorf("%+v", j)
			}
			got++
		}
		check(t, p.Drain(ctx))
		openPusherOf(t, openNode(t, dir, "q"), PusherConfig[int]{}) // and the worker looks who is there
		await(t, "the worker to know that it is gone", func() bool {
			known := *w.core.greeter.known.Load()
			return len(known) == 1 && known[fabric.Address{Node: "q"}] != nil
		})
		for j, err := range w.Jobs(ctx) {
			if err != nil || j.Value != got {
				t.Errorf("%+v, %v", j, err)
			}
			got++
		}
		if st := w.Stats(); got != jobs || st.Orphaned != 0 || st.Received != jobs {
			t.Errorf("%d jobs of %d, %+v", got, jobs, st)
		}
	}
}

// A worker of another type gets an error for each job and does nobody harm: those
// who can do the jobs do.
func TestPipelineWorkerOfAnotherType(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[string]{})
	wrong := openPullerOf(t, openNode(t, dir, "wrong"), PullerConfig[reading]{InFlight: 2})
	for _, job := range []string{"a", "b"} {
		check(t, p.Push(ctx, job))
	}
	for range 2 {
		var e *CodecError
		if _, err := wrong.Receive(ctx); !errors.As(err, &e) || e.Type != "patterns.reading" {
			t.Fatalf("job of another type: %v", err)
		}
	}
	right := openPullerOf(t, openNode(t, dir, "right"), PullerConfig[string]{InFlight: 8})
	var got []string
	var receiving sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	receiving.Go(func() {
		for _, err := range wrong.Jobs(stop) {
			if err == nil {
				t.Error("decoded after all")
			}
		}
	})
	for len(got) < 2 {
		j := next(t, right)
		got = append(got, j.Value)
		check(t, j.Ack())
	}
	cancel()
	receiving.Wait()
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) || wrong.Stats().Undecodable < 2 {
		t.Errorf("got %q; %+v", got, wrong.Stats())
	}
	check(t, p.Drain(ctx))
}

// A job that cannot be encoded, or is too large, is not accepted, and the next
// one is.
func TestPipelineJobThatCannotBeSent(t *testing.T) {
	for _, d := range []Delivery{AtLeastOnce, AtMostOnce} {
		ctx, dir := testContext(t), directory.NewRegistry()
		node := openNodeOf(t, fabric.Config{Name: "small", Directory: dir, MaxMessage: 1 << 10})
		p := openPusherOf(t, node, PusherConfig[string]{Delivery: d, Codec: failing{}})
		w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[string]{Codec: failing{}})
		var e *CodecError
		var large *fabric.TooLargeError
		for _, job := range []string{"panics", "fails"} {
			if err := p.Push(ctx, job); !errors.As(err, &e) {
				t.Errorf("%s: %v", job, err)
			}
		}
		if err := p.Push(ctx, strings.Repeat("x", 2<<10)); !errors.As(err, &large) {
			t.Errorf("too large: %v", err)
		}
		check(t, p.Push(ctx, "good"))
		if j := next(t, w); j.Value != "good" {
			t.Errorf("got %q", j.Value)
		} else {
			check(t, j.Ack())
		}
		check(t, p.Drain(ctx))
		if st := p.Stats(); st.Pushed != 1 || st.Unsettled != 0 || st.Dropped != 0 {
			t.Errorf("%s: %+v", d, st)
		}
	}
}

// What somebody else sends on the pipeline's channels is refused and counted.
func TestPipelineStrangers(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	p := openPusherOf(t, openNode(t, dir, "p"), PusherConfig[string]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[string]{})
	check(t, p.WaitWorkers(ctx, 1))
	stranger := openNode(t, dir, "stranger")
	jobs, err := stranger.Producer(ctx, "jobs", fabric.ProducerConfig{})
	check(t, err)
	acks, err := stranger.Producer(ctx, "jobs.acks", fabric.ProducerConfig{})
	check(t, err)
	records := [][]byte{
		nil, []byte("hello"), {0xc1}, appendRecord(nil, 99), appendRecord(nil, kindJob, 0), appendRecord(nil, kindHello, 1, 0, 0),
		appendRecord(nil, kindHello, 1, 0, 1<<40), appendRecord(nil, kindReject, 1), appendRecord(nil, kindTaken), appendRecord(nil, kindBye),
		appendRecord(nil, kindDeadJob, 0, 1, 1), appendRecord(nil, kindOneJob),
	}
	for _, record := range records {
		check(t, jobs.SendAll(ctx, record))
		check(t, acks.SendAll(ctx, record))
	}
	// Well-formed, and about nothing that there is.
	check(t, acks.SendAll(ctx, appendRecord(nil, kindDone, 12345, 1)))
	check(t, acks.SendAll(ctx, appendRecord(nil, kindBye, 12345)))
	check(t, acks.SendAll(ctx, appendRecord(nil, kindTaken, 5)))
	check(t, jobs.SendAll(ctx, appendRecord(nil, kindJob, 7, 1, 1))) // of a pusher that nobody knows
	for range records {
		var e *RecordError
		if _, err := w.Receive(ctx); !errors.As(err, &e) || e.From != jobs.Address() {
			t.Fatalf("a stranger's message: %v", err)
		}
	}
	check(t, p.Push(ctx, "job"))
	j := next(t, w)
	check(t, j.Ack())
	await(t, "all records to be counted", func() bool { return p.Stats().Malformed+p.Stats().Late > uint64(len(records)) })
	// The last of the stranger's may come behind the job, and is seen when somebody receives.
	seeing, stop := context.WithCancel(ctx)
	var receiving sync.WaitGroup
	receiving.Go(func() {
		if _, err := w.Receive(seeing); err != context.Canceled {
			t.Errorf("what no worker should get: %v", err)
		}
	})
	await(t, "the job of nobody", func() bool { return w.Stats().Orphaned == 1 })
	stop()
	receiving.Wait()
	check(t, p.Drain(ctx))
	if st := w.Stats(); st.Malformed != uint64(len(records)) || st.Orphaned != 1 || st.Received != 1 {
		t.Errorf("worker: %+v", st)
	}
	if st := p.Stats(); st.Settled != 1 || st.Late != 1 || st.Malformed != uint64(len(records)) {
		t.Errorf("pusher: %+v", st)
	}
}

// A worker learns that its pusher is gone: from Receive if that had not finished,
// and from Ack.
func TestPipelinePusherLost(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	node := openNode(t, dir, "dies")
	p := openPusherOf(t, node, PusherConfig[int]{})
	w := openPullerOf(t, openNode(t, dir, "w"), PullerConfig[int]{})
	check(t, p.Push(ctx, 1))
	j := next(t, w)
	check(t, node.Close())
	if _, err := w.Receive(ctx); lostPeer(err) == nil {
		t.Errorf("Receive: %v", err)
	}
	if err := j.Ack(); lostPeer(err) == nil {
		t.Errorf("Ack: %v", err)
	}
	// The next pusher of that name is another one.
	again := openPusherOf(t, openNode(t, dir, "dies"), PusherConfig[int]{})
	check(t, again.Push(ctx, 2))
	if j := next(t, w); j.Value != 2 {
		t.Errorf("got %d", j.Value)
	} else {
		check(t, j.Ack())
	}
	check(t, again.Drain(ctx))
}

func TestPipelineRefusesBadConfig(t *testing.T) {
	ctx, n := testContext(t), openNode(t, directory.NewRegistry(), "n")
	for want, cfg := range map[string]PusherConfig[int]{
		"delivery 7":                    {Delivery: 7},
		"MaxDeliveries is -1":           {MaxDeliveries: -1},
		"and MaxDeliveries is not":      {DeadLetters: "dead"},
		"at most once and":              {Delivery: AtMostOnce, MaxDeliveries: 1},
		"own channel":                   {MaxDeliveries: 1, DeadLetters: "jobs"},
		"Unsettled.Bytes is -1":         {Unsettled: fabric.HighWaterMark{Bytes: -1}},
		"Unsettled.Messages is 2000000": {Unsettled: fabric.HighWaterMark{Messages: 2_000_000}},
		"Patience is 1ms":               {Patience: time.Millisecond},
		`channel name "a/b.acks"`:       {Channel: "a/b"},
		"has 260 bytes":                 {Channel: longName},
	} {
		if cfg.Channel == "" {
			cfg.Channel = "jobs"
		}
		if p, err := OpenPusher(ctx, n, cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q (%v)", cfg, err, want, p != nil)
		}
	}
	for _, inFlight := range []int{-1, maxInFlight + 1} {
		if _, err := OpenPuller(ctx, n, PullerConfig[int]{Channel: "jobs", InFlight: inFlight}); !errors.Is(err, fabric.ErrConfig) {
			t.Errorf("InFlight %d: %v", inFlight, err)
		}
	}
	members, err := n.Directory().Members(ctx, "jobs.acks")
	if err != nil || len(members) != 0 {
		t.Errorf("%v, %v are left behind", members, err)
	}
}

var longName = strings.Repeat("x", 255)
