// Package bench measures one link between two processes: throughput one way,
// round trips, and allocations per message at each end.
//
// The parent serves the directory and starts itself twice. Both children open a
// node; "echo" has a consumer on the channel forth, which sends every message
// back on the channel back, and a consumer on flow, which counts; "drive" has
// the other ends. The parent orders one measurement after the other:
//
//  1. drive sends a message forth and waits until it is back, again and again;
//  2. drive sends on flow for the duration and drains. The consumer counts
//     from the end of the warm-up, by its own clock, to the last message.
//
// Both ends read runtime.MemStats.Mallocs where their counting begins and ends.
//
// With Attach, all of it is done once more with workers: two further processes
// open nodes, and the two ends attach to one each. So the way of a message is
// longer by two processes, which only pass it on.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/fabric/directory"
)

// A Transport carries the link.
type Transport string

const (
	TCP Transport = "tcp" // over loopback
	IPC Transport = "ipc" // a Unix socket
)

// Transports are those that are known.
var Transports = []Transport{TCP, IPC}

// Options are what to measure.
type Options struct {
	Size      int           // of a message, in bytes
	Duration  time.Duration // of each of the two measurements
	Transport Transport
	Mark      int64    // high-water mark in bytes; 0 is the fabric's default
	Copy      bool     // send bodies that are copied, whatever the size
	Procs     int      // GOMAXPROCS of each process; 0: half of the processors each
	Attach    bool     // measure beside it what workers of two nodes get
	CPUs      []int    // nil, or the CPU that the consumer's process stays on, and the producer's (Linux)
	Command   []string // starts a child: see Child
	Stderr    io.Writer
	Logger    *slog.Logger
	// Progress is told now and then how much of Time is over. It is called by one
	// goroutine at a time.
	Progress func(spent time.Duration)
}

// Time is about how long Run takes: as long as all measurements.
func (o Options) Time() time.Duration {
	if o.Attach {
		return 4 * o.Duration
	}
	return 2 * o.Duration
}

// A Result is what was measured.
type Result struct {
	Size              int         `json:"size"`
	Transport         Transport   `json:"transport"`
	Procs             int         `json:"procs"`
	Copied            bool        `json:"copied"` // bodies were copied by Send, not handed over in buffers
	Seconds           float64     `json:"seconds"`
	Messages          uint64      `json:"messages"`
	MessagesPerSecond float64     `json:"messages_per_second"`
	BytesPerSecond    float64     `json:"bytes_per_second"`
	RoundTrip         RoundTrip   `json:"round_trip"`
	Allocs            Allocations `json:"allocs_per_message"`
	// CPUPerMessage is the time of all processes' CPUs for a message of the flow, in
	// nanoseconds; 0 where the system does not tell.
	CPUPerMessage float64 `json:"cpu_ns_per_message,omitempty"`
	// Attached is the same with workers that are attached to two nodes, and
	// AttachedShare its part of the throughput.
	Attached      *Result `json:"attached,omitempty"`
	AttachedShare float64 `json:"attached_share,omitempty"`
}

// RoundTrip is the time there and back of single messages, in microseconds.
type RoundTrip struct {
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	Max   float64 `json:"max_us"`
	Count int64   `json:"count"`
}

// Allocations are per message, at each end of the flow.
type Allocations struct {
	Producer float64 `json:"producer"`
	Consumer float64 `json:"consumer"`
}

// ownedFrom is the size in bytes from which messages are handed over in buffers
// of the fabric: smaller ones are better gathered.
const ownedFrom = 8 << 10

// Run measures.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Procs == 0 {
		o.Procs = max(1, runtime.NumCPU()/2) // the two processes share the machine
	}
	told := o.follow()
	defer told()
	r, err := o.run(ctx, false)
	if err != nil || !o.Attach {
		return r, err
	}
	if r.Attached, err = o.run(ctx, true); err != nil {
		return nil, err
	}
	r.AttachedShare = r.Attached.MessagesPerSecond / r.MessagesPerSecond
	return r, nil
}

// run measures once, with processes of its own.
func (o Options) run(ctx context.Context, attached bool) (*Result, error) {
	dir, err := os.MkdirTemp("", "zfab-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	socket := func(name string) string { return "ipc://" + filepath.Join(dir, name+".sock") }
	registry := directory.NewRegistry()
	defer registry.Close()
	server, err := directory.Serve(ctx, registry, "tcp://127.0.0.1:0", o.Logger)
	if err != nil {
		return nil, err
	}
	defer server.Close()

	var ends []*child.Process
	closeAll := sync.OnceFunc(func() {
		for _, end := range ends {
			end.Close()
		}
	})
	defer closeAll()
	// A child that is closed answers no more, which ends the wait for it.
	stop := context.AfterFunc(ctx, closeAll)
	defer stop()
	// The nodes first: who attaches needs them.
	roles := []role{echo, drive}
	if attached {
		roles = []role{hostOfEcho, hostOfDrive, echo, drive}
	}
	for i, role := range roles {
		p, err := child.Start(string(role), o.Command, o.Stderr)
		if err != nil {
			return nil, err
		}
		ends = append(ends, p)
		s := setup{Role: role, Directory: server.Addr(), Listen: "tcp://127.0.0.1:0", Size: o.Size, Duration: o.Duration, Mark: o.Mark, Copy: o.Copy || o.Size < ownedFrom, Procs: o.Procs}
		if o.CPUs != nil {
			s.CPU = &o.CPUs[i%2] // a worker and its node share one
		}
		if o.Transport == IPC {
			s.Listen = socket(string(role))
		}
		if attached {
			s.Attach = socket("attach-" + string(role.host()))
		}
		if err := p.Tell(s); err != nil {
			return nil, err
		}
		if role.host() == role {
			var ready answer
			if err := hear(p, &ready); err != nil {
				return nil, err
			}
		}
	}
	r, err := measure(ends, o)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return r, err
}

// progressInterval is how often progress is told.
const progressInterval = 200 * time.Millisecond

// follow tells progress until the function that it returns is called.
func (o Options) follow() (stop func()) {
	if o.Progress == nil {
		return func() {}
	}
	begin, done := time.Now(), make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				o.Progress(min(time.Since(begin), o.Time()))
			case <-done:
				return
			}
		}
	})
	return func() { close(done); following.Wait() }
}

// hear takes an answer.
func hear(from *child.Process, to *answer) error {
	if err := from.Hear(to); err != nil {
		return err
	}
	if to.Failed != "" {
		return fmt.Errorf("%s: %s", from.Name(), to.Failed)
	}
	return nil
}

// measure takes the answers as they come: drive's round trips, then what
// each end says of the flow. The two ends are the last of all processes.
func measure(all []*child.Process, o Options) (*Result, error) {
	echo, drive := all[len(all)-2], all[len(all)-1]
	var trips, sent, received answer
	if err := hear(drive, &trips); err != nil {
		return nil, err
	}
	before, known := cpuOf(all)
	if err := hear(drive, &sent); err != nil {
		return nil, err
	}
	if err := hear(echo, &received); err != nil {
		return nil, err
	}
	after, knownStill := cpuOf(all)
	f := received.Flow
	if f == nil || sent.Flow == nil || trips.RoundTrip == nil {
		return nil, errors.New("the children's answers are not what they should be")
	}
	if f.Messages == 0 || f.Seconds <= 0 {
		return nil, errors.New("no message arrived after the warm-up: measure for longer")
	}
	r := &Result{
		Size: o.Size, Transport: o.Transport, Procs: o.Procs, Copied: o.Copy || o.Size < ownedFrom, Seconds: f.Seconds, Messages: f.Messages,
		MessagesPerSecond: float64(f.Messages) / f.Seconds,
		BytesPerSecond:    float64(f.Messages) * float64(o.Size) / f.Seconds,
		RoundTrip:         *trips.RoundTrip,
		Allocs:            Allocations{Producer: sent.Flow.allocs(), Consumer: f.allocs()},
	}
	if known && knownStill {
		r.CPUPerMessage = float64(after-before) / float64(f.All)
	}
	return r, nil
}
