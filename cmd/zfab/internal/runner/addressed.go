package runner

import (
	"context"
	"errors"

	"github.com/zfab/zfab/cmd/zfab/internal/units"
	"github.com/zfab/zfab/fabric"
)

// A rotation sends to each target in turn. A target at its high-water mark is
// left to a delivery, a goroutine that waits with the one message in hand, and
// is passed over meanwhile: a consumer that does not read must not hold up what
// is for the others.
type rotation struct {
	*sender
	open      *openProducer // of an open exchange; nil where the targets are fixed
	ready     []*target     // in no fixed order once one left
	turn      int
	waiting   int // deliveries under way
	most      int // and how many there may be
	delivered chan delivery
	spare     [][]byte // buffers that deliveries gave back
	failed    error
}

// A delivery is one message in the hands of a goroutine, or without a body a
// target that it looked for.
type delivery struct {
	target *target
	body   []byte
	err    error
}

// deliveryBytes bounds what one sender's deliveries hold together.
const deliveryBytes = 16 * units.MiB

func (s *sender) addressed(ctx context.Context, open *openProducer) error {
	s.divide()
	r := &rotation{sender: s, open: open, most: min(len(s.targets), max(2, int(deliveryBytes/s.load.Size)))}
	r.delivered = make(chan delivery, max(r.most, len(s.targets)))
	for i := range s.targets { // each producer begins at another target
		if t := s.targets[(s.number+i)%len(s.targets)]; t.to != nil {
			r.add(t)
		} else {
			r.lookFor(ctx, t)
		}
	}
	for r.failed == nil && r.next(ctx) {
	}
	for r.waiting > 0 {
		r.collect(ctx)
	}
	return r.failed
}

// next sends one message; false when there is none left to send.
func (r *rotation) next(ctx context.Context) bool {
	for r.waiting > 0 && (len(r.delivered) > 0 || len(r.ready) == 0 || r.waiting >= r.most) {
		r.collect(ctx)
	}
	if len(r.ready) == 0 {
		return false
	}
	if r.turn >= len(r.ready) {
		r.turn = 0
		r.pace.pass(r.waiting)
	}
	planned, more := r.pace.next(ctx)
	if !more {
		r.failed = ctx.Err()
		return false
	}
	t := r.ready[r.turn]
	err := r.emit(t, planned, t.to.TrySend)
	r.count(t)
	switch {
	case errors.Is(err, fabric.ErrHighWater):
		r.remove()
		r.hand(ctx, t)
	case err != nil:
		r.remove()
		r.refused(ctx, t, err)
	case t.left == 0:
		r.remove()
	default:
		r.turn++
	}
	return true
}

// hand gives the message just sealed to a delivery and takes another buffer.
func (r *rotation) hand(ctx context.Context, t *target) {
	r.waiting++
	go r.deliver(ctx, delivery{target: t, body: r.body})
	if n := len(r.spare); n > 0 {
		r.body, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		r.body = make([]byte, r.load.Size)
	}
}

// deliver waits until the target accepts the message. The rotation collects it.
func (r *rotation) deliver(ctx context.Context, d delivery) {
	d.err = d.target.to.Send(ctx, d.body)
	r.delivered <- d
}

func (r *rotation) collect(ctx context.Context) {
	d := <-r.delivered
	r.waiting--
	if d.body != nil {
		r.spare = append(r.spare, d.body)
	}
	switch {
	case d.err == nil:
		r.add(d.target)
	case d.body == nil:
		r.failed = errors.Join(r.failed, d.err)
	default:
		r.refused(ctx, d.target, d.err)
	}
}

// refused takes back a message that a target did not accept. In an open exchange
// a consumer that is gone may come again.
func (r *rotation) refused(ctx context.Context, t *target, err error) {
	t.sent--
	if r.open == nil || !gone(err) {
		r.failed = errors.Join(r.failed, err)
		return
	}
	if t.left >= 0 {
		t.left++
	}
	r.lookFor(ctx, t)
}

// gone reports whether an error says that a consumer takes no more.
func gone(err error) bool {
	var lost *fabric.PeerLostError
	return errors.As(err, &lost) || errors.Is(err, fabric.ErrNoConsumer)
}

// lookFor lets a goroutine wait until a target is there again, or at all.
func (r *rotation) lookFor(ctx context.Context, t *target) {
	r.waiting++
	go func() {
		r.delivered <- delivery{target: t, err: r.open.find(ctx, t, r.life, r.over)}
	}()
}

func (r *rotation) add(t *target) {
	if t.left != 0 && t.to != nil {
		r.ready = append(r.ready, t)
	}
}

// remove takes out the target whose turn it is.
func (r *rotation) remove() {
	last := len(r.ready) - 1
	r.ready[r.turn] = r.ready[last]
	r.ready = r.ready[:last]
}

// divide gives each target its share of the load's messages.
func (s *sender) divide() {
	n := len(s.targets)
	for i := range s.targets {
		t := s.targets[(s.number+i)%n]
		t.left = -1
		if s.load.Duration > 0 || s.forever {
			continue
		}
		t.left = s.load.Messages / n
		if i < s.load.Messages%n {
			t.left++
		}
		if t.left == 0 && !t.stalls {
			s.others--
		}
	}
}

// count takes a message off the target's share.
func (s *sender) count(t *target) {
	if t.left < 0 {
		return
	}
	t.left--
	if t.left == 0 && !t.stalls {
		s.others--
		if s.others == 0 {
			s.until = s.clock.now()
		}
	}
}
