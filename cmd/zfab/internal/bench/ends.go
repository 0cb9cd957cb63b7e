package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

type role string

const (
	echo  role = "echo"
	drive role = "drive"

	hostOfEcho  role = "host-of-echo" // nodes that the two attach to
	hostOfDrive role = "host-of-drive"
)

// host is the node that an end attaches to, or the node itself.
func (r role) host() role {
	switch r {
	case echo:
		return hostOfEcho
	case drive:
		return hostOfDrive
	}
	return r
}

// A setup is the one order to a child.
type setup struct {
	Role      role          `json:"role"`
	Directory string        `json:"directory"`
	Listen    string        `json:"listen"`
	Attach    string        `json:"attach,omitempty"` // the socket of the end's node, or that node's own
	Size      int           `json:"size"`
	Duration  time.Duration `json:"duration"`
	Mark      int64         `json:"mark"`
	Copy      bool          `json:"copy"`  // sends bodies of its own, or else buffers of the fabric
	Procs     int           `json:"procs"` // GOMAXPROCS
	CPU       *int          `json:"cpu,omitempty"`
}

// An answer is a line from a child. One of its fields is set.
type answer struct {
	Failed    string     `json:"failed,omitempty"`
	Ready     bool       `json:"ready,omitempty"` // a node's
	RoundTrip *RoundTrip `json:"round_trip,omitempty"`
	Flow      *flow      `json:"flow,omitempty"`
}

// A flow is what one end saw of the throughput measurement after the warm-up.
type flow struct {
	Messages uint64  `json:"messages"`
	All      uint64  `json:"all"` // messages, those of the warm-up included
	Seconds  float64 `json:"seconds"`
	Mallocs  uint64  `json:"mallocs"`
}

func (f *flow) allocs() float64 {
	if f.Messages == 0 {
		return 0
	}
	return float64(f.Mallocs) / float64(f.Messages)
}

// Child is one of the two processes. It returns when its input ends.
func Child(ctx context.Context, in io.Reader, out io.Writer, logger *slog.Logger) error {
	ctx, orders := child.Orders[setup](ctx, in)
	s, err := child.Next(ctx, orders)
	if err != nil {
		return nil
	}
	runtime.GOMAXPROCS(s.Procs)
	answers := json.NewEncoder(out)
	if err := s.serve(ctx, answers, logger); err != nil && ctx.Err() == nil {
		if err := answers.Encode(answer{Failed: err.Error()}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func (s setup) serve(ctx context.Context, answers *json.Encoder, logger *slog.Logger) error {
	if s.CPU != nil {
		if err := stayOn(*s.CPU); err != nil {
			return err
		}
	}
	if s.Attach != "" && s.Role.host() != s.Role {
		node, err := fabric.Attach(ctx, s.Attach, fabric.AttachConfig{Name: string(s.Role), Logger: logger})
		if err != nil {
			return err
		}
		defer node.Close()
		return s.run(ctx, node, answers, logger)
	}
	dir, err := directory.Dial(ctx, s.Directory, directory.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer dir.Close()
	cfg := fabric.Config{Name: string(s.Role), Listen: s.Listen, Directory: dir, Logger: logger}
	if s.Role.host() == s.Role {
		cfg.Workers.Listen = s.Attach
	}
	node, err := fabric.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	return s.run(ctx, node, answers, logger)
}

// run does the end's part.
func (s setup) run(ctx context.Context, node *fabric.Node, answers *json.Encoder, logger *slog.Logger) error {
	end := s.host
	switch s.Role {
	case echo:
		end = s.echo
	case drive:
		end = s.drive
	}
	if err := end(ctx, node, answers); err != nil {
		return err
	}
	logs.Hush(logger)
	<-ctx.Done() // the other end may still need the link
	return nil
}

func (s setup) mark() fabric.HighWaterMark { return fabric.HighWaterMark{Bytes: s.Mark} }

// host is a node that others attach to: it only has to be there.
func (s setup) host(_ context.Context, _ *fabric.Node, answers *json.Encoder) error {
	return answers.Encode(answer{Ready: true})
}

func (s setup) echo(ctx context.Context, node *fabric.Node, answers *json.Encoder) error {
	back, err := node.Producer(ctx, "back", fabric.ProducerConfig{HighWaterMark: s.mark()})
	if err != nil {
		return err
	}
	forth, err := node.Consumer(ctx, "forth", fabric.ConsumerConfig{HighWaterMark: s.mark(), Producers: 1})
	if err != nil {
		return err
	}
	flow, err := node.Consumer(ctx, "flow", fabric.ConsumerConfig{HighWaterMark: s.mark(), Producers: 1})
	if err != nil {
		return err
	}
	if err := back.WaitConsumers(ctx, 1); err != nil {
		return err
	}
	to, err := back.To(back.Consumers()[0])
	if err != nil {
		return err
	}
	for m, err := range forth.Messages(ctx) {
		if err == nil {
			err = to.Send(ctx, m.Body)
		}
		if err != nil {
			return err
		}
	}
	f, err := s.count(ctx, flow)
	if err != nil {
		return err
	}
	return answers.Encode(answer{Flow: f})
}

func (s setup) drive(ctx context.Context, node *fabric.Node, answers *json.Encoder) error {
	back, err := node.Consumer(ctx, "back", fabric.ConsumerConfig{HighWaterMark: s.mark()})
	if err != nil {
		return err
	}
	forth, err := s.target(ctx, node, "forth")
	if err != nil {
		return err
	}
	flow, err := s.target(ctx, node, "flow")
	if err != nil {
		return err
	}
	trips, err := s.roundTrips(ctx, forth.to, back)
	if err != nil {
		return err
	}
	if err := forth.producer.Drain(ctx); err != nil {
		return err
	}
	if err := answers.Encode(answer{RoundTrip: trips}); err != nil {
		return err
	}
	f, err := s.send(ctx, flow.to)
	if err != nil {
		return err
	}
	if err := flow.producer.Drain(ctx); err != nil {
		return err
	}
	return answers.Encode(answer{Flow: f})
}

// A stream is a producer with its only consumer.
type stream struct {
	producer *fabric.Producer
	to       *fabric.Target
}

func (s setup) target(ctx context.Context, node *fabric.Node, channel string) (stream, error) {
	p, err := node.Producer(ctx, channel, fabric.ProducerConfig{HighWaterMark: s.mark()})
	if err != nil {
		return stream{}, err
	}
	if err := p.WaitConsumers(ctx, 1); err != nil {
		return stream{}, err
	}
	to, err := p.To(p.Consumers()[0])
	return stream{p, to}, err
}

// warmUp is the part of a measurement that is not counted.
func (s setup) warmUp() time.Duration { return s.Duration / 5 }

func (s setup) roundTrips(ctx context.Context, forth *fabric.Target, back *fabric.Consumer) (*RoundTrip, error) {
	times := hdrhistogram.New(1, int64(time.Minute), 3)
	body := make([]byte, s.Size)
	for begin := time.Now(); ; {
		sent := time.Now()
		if err := forth.Send(ctx, body); err != nil {
			return nil, err
		}
		m, err := back.Receive(ctx)
		if err != nil {
			return nil, err
		}
		if len(m.Body) != s.Size {
			return nil, errors.New("a message came back with another length")
		}
		now := time.Now()
		if now.Sub(begin) < s.warmUp() {
			continue
		}
		times.RecordValue(int64(now.Sub(sent)))
		if now.Sub(begin) >= s.Duration {
			break
		}
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	return &RoundTrip{P50: us(times.ValueAtQuantile(50)), P99: us(times.ValueAtQuantile(99)), Max: us(times.Max()), Count: times.TotalCount()}, nil
}

// clockEvery is how many messages pass between two readings of the clock: as
// many as make 16 KiB, for a reading costs as much as a small message.
func (s setup) clockEvery() uint64 { return uint64(max(1, (16<<10)/max(1, s.Size))) }

func (s setup) send(ctx context.Context, to *fabric.Target) (*flow, error) {
	body := make([]byte, s.Size)
	every := s.clockEvery()
	var m measurement
	begin := time.Now()
	var err error
	for n, next := uint64(0), uint64(0); ; n++ {
		if n == next {
			next += every
			now := time.Now()
			if now.Sub(begin) >= s.Duration {
				return m.end(n, now), nil
			}
			m.warm(n, now, now.Sub(begin) >= s.warmUp())
		}
		if s.Copy {
			err = to.Send(ctx, body)
		} else {
			err = to.SendBuffer(ctx, fabric.NewBuffer(s.Size))
		}
		if err != nil {
			return nil, err
		}
	}
}

// count receives until the producer has finished.
func (s setup) count(ctx context.Context, c *fabric.Consumer) (*flow, error) {
	every := s.clockEvery()
	var m measurement
	var begin time.Time
	for n, next := uint64(0), uint64(0); ; n++ {
		message, err := c.Receive(ctx)
		if err != nil {
			if errors.Is(err, fabric.ErrEnd) {
				return m.end(n, time.Now()), nil
			}
			return nil, err
		}
		if len(message.Body) != s.Size {
			return nil, errors.New("a message came with another length")
		}
		if n == next {
			next += every
			now := time.Now()
			if n == 0 {
				begin = now
			}
			m.warm(n, now, now.Sub(begin) >= s.warmUp())
		}
	}
}

// A measurement runs from the end of the warm-up to its end.
type measurement struct {
	running bool
	first   uint64
	since   time.Time
	mallocs uint64
}

func (m *measurement) warm(n uint64, now time.Time, over bool) {
	if over && !m.running {
		*m = measurement{running: true, first: n, since: now, mallocs: mallocs()}
	}
}

func (m *measurement) end(n uint64, now time.Time) *flow {
	if !m.running {
		return &flow{All: n}
	}
	return &flow{Messages: n - m.first, All: n, Seconds: now.Sub(m.since).Seconds(), Mallocs: mallocs() - m.mallocs}
}

func mallocs() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs
}
