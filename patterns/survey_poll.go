package patterns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zfab/zfab/fabric"
)

// poll is a survey under way, without its types. It is the surveying goroutine's.
type poll struct {
	r        *requester
	ctx      context.Context
	question parcel

	results chan outcome                // of attempts: one at most of each respondent
	unasked map[fabric.Address]struct{} // that have not said hello, or are behind
	asked   map[fabric.Address]*attempt // that have not answered
	expired []fabric.Address            // whose deadline passed there first: missing, as if it had passed here
	ready   []verdict                   // that came to be without an attempt's outcome
	came    <-chan struct{}             // closed when somebody may have said hello
	changed <-chan struct{}             // closed when somebody may have left
	behind  <-chan time.Time            // when those that are behind are to be asked again; nil if none is
}

// verdict is what became of one respondent's question.
type verdict struct {
	from fabric.Address
	body parcel // if err is nil
	err  error
}

// behindDelay is how long one waits to be asked that had no room for the question:
// its node was not reachable, or much was sent to it at once.
const behindDelay = 10 * time.Millisecond

// poll begins a survey among those that the directory knows now. The caller must
// end it; the question is released by that.
func (r *requester) poll(ctx context.Context, question parcel) (*poll, error) {
	if err := r.admit(ctx); err != nil {
		return nil, err
	}
	p := &poll{
		r: r, ctx: ctx, question: question,
		unasked: make(map[fabric.Address]struct{}), asked: make(map[fabric.Address]*attempt),
	}
	for _, addr := range r.producer.Consumers() {
		p.unasked[addr] = struct{}{}
	}
	if n := len(p.unasked); n > maxAsked {
		r.dismiss()
		return nil, fmt.Errorf("patterns: survey of %s: %w: %d, more than %d", r.cfg.channel, ErrTooManyRespondents, n, maxAsked)
	}
	p.results = make(chan outcome, len(p.unasked))
	p.ask()
	return p, nil
}

// ask asks those that can be asked and were not yet.
func (p *poll) ask() {
	r := p.r
	p.changed = r.producer.Changed()
	listed := make(map[fabric.Address]bool)
	for _, addr := range r.producer.Consumers() {
		listed[addr] = true
	}
	left, expired := timeLeft(p.ctx)
	if expired != nil {
		return // next says so
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.came, p.behind = r.servers.came, nil
	members := make(map[fabric.Address]*server, len(p.unasked))
	for _, m := range r.servers.members {
		members[m.addr] = m
	}
	for addr := range p.unasked {
		m := members[addr]
		switch {
		case m == nil && !listed[addr]:
			p.resolve(addr, p.lost(addr, "it has left"))
		case m == nil || !m.met: // no hello yet, or its node is not known
		case m.gone:
			p.resolve(addr, p.lost(addr, "it is gone"))
		case m.away:
			p.resolve(addr, p.lost(addr, fmt.Sprintf("its node %s has no connection", addr.Node)))
		default:
			p.put(m, left)
		}
	}
}

// put asks one. Under the requester's mu: it waits for nothing.
func (p *poll) put(m *server, left uint64) {
	r := p.r
	r.servers.balance.take(m.seat)
	a := r.attempt(m, p.results, nil)
	var mem [headRoom]byte
	err := p.question.trySend(m.target, appendRecord(mem[:0], kindRequest, r.index(), a.id, left, 0))
	if err == nil {
		delete(p.unasked, m.addr)
		p.asked[m.addr] = a
		return
	}
	r.remove(a)
	r.stats.Requests--
	switch {
	case err == fabric.ErrHighWater:
		p.behind = time.After(behindDelay)
	case tooLarge(err):
		p.resolve(m.addr, err)
	default:
		r.servers.retire(m)
		p.resolve(m.addr, p.lost(m.addr, err.Error()))
	}
}

func (p *poll) lost(addr fabric.Address, reason string) error {
	return &ServerLostError{Channel: p.r.cfg.channel, Server: addr, Reason: reason}
}

// resolve ends the question of one that could not be asked.
func (p *poll) resolve(addr fabric.Address, err error) {
	delete(p.unasked, addr)
	p.ready = append(p.ready, verdict{from: addr, err: err})
}

// next waits for the next verdict; there is no more when everyone has one. An error
// is the survey's: the context's, or fabric.ErrClosed.
func (p *poll) next() (v verdict, more bool, err error) {
	for {
		if n := len(p.ready); n > 0 {
			v, p.ready = p.ready[0], p.ready[1:]
			return v, true, nil
		}
		switch {
		case len(p.unasked)+len(p.asked) > 0:
		case len(p.expired) > 0:
			return verdict{}, false, context.DeadlineExceeded
		default:
			return verdict{}, false, nil
		}
		came, changed := p.came, p.changed
		if len(p.unasked) == 0 {
			came, changed = nil, nil
		}
		select {
		case o := <-p.results:
			if errors.Is(o.err, fabric.ErrClosed) {
				return verdict{}, false, fabric.ErrClosed
			}
			from := o.of.server.addr
			delete(p.asked, from)
			var e *ReplyError
			if errors.As(o.err, &e) && e.Code == CodeExpired {
				p.expired = append(p.expired, from)
				continue
			}
			return verdict{from: from, body: o.body, err: o.err}, true, nil
		case <-came:
			p.ask()
		case <-changed:
			p.ask()
		case <-p.behind:
			p.ask()
		case <-p.ctx.Done():
			return verdict{}, false, p.ctx.Err()
		case <-p.r.ctx.Done():
			return verdict{}, false, fabric.ErrClosed
		}
	}
}

// end ends the survey: who has not answered is told, and returned, by node and
// index.
func (p *poll) end() (missing []fabric.Address) {
	r := p.r
	missing = slices.AppendSeq(p.expired, maps.Keys(p.unasked))
	missing = slices.AppendSeq(missing, maps.Keys(p.asked))
	for _, v := range p.ready {
		missing = append(missing, v.from)
	}
	slices.SortFunc(missing, compareAddress)
	r.mu.Lock()
	for _, a := range p.asked {
		if !a.over {
			r.remove(a)
			r.stats.Cancelled++
			r.tellCancel(a)
		}
	}
	for len(p.results) > 0 { // which came too late to be yielded
		o := <-p.results
		r.stats.LateReplies++
		o.body.release()
	}
	r.mu.Unlock()
	r.dismiss()
	p.question.release()
	return missing
}
