package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/logs"
	"github.com/zfab/zfab/fabric/directory"
)

// What a node's process and its parent say to each other:
//
//	parent                        child
//	{"spec": ...}            ->
//	                         <-   {"ready": true}       or {"failed": "why"}
//	{"start": nanoseconds}   ->
//	                         <-   {"received": n}       now and then
//	{"ask": 7, "question"..} ->
//	                         <-   {"answer": 7, "sight": ...}  when it is so, also after the result
//	{"drop": 7}              ->                         if nobody waits for the answer
//	                         <-   {"account": ...}      again and again in a run with kills
//	{"finish": true}         ->                         at the load's end in a run with kills
//	{"stop": true}           ->                         if the deadline passed
//	                         <-   {"result": ...}
//	(end of input)           ->

// An order is a line to the child. One of its fields is set, and Question with Ask.
type order struct {
	Spec     *Spec     `json:"spec,omitempty"`
	Start    int64     `json:"start,omitempty"` // nanoseconds of the wall clock
	Finish   bool      `json:"finish,omitempty"`
	Stop     bool      `json:"stop,omitempty"`
	Ask      uint64    `json:"ask,omitempty"`
	Question *question `json:"question,omitempty"`
	Drop     uint64    `json:"drop,omitempty"`
}

// A word is a line from the child. One of its fields is set, and Sight with Answer.
type word struct {
	Answer      uint64  `json:"answer,omitempty"`
	Sight       *sight  `json:"sight,omitempty"`
	Ready       bool    `json:"ready,omitempty"`
	Failed      string  `json:"failed,omitempty"`
	Unreachable bool    `json:"unreachable,omitempty"` // the directory is what failed
	Received    *uint64 `json:"received,omitempty"`
	Account     *Result `json:"account,omitempty"`
	Result      *Result `json:"result,omitempty"`
}

// Child is one node in a process of its own, the other end of a process
// cluster. It returns when its input ends.
func Child(ctx context.Context, in io.Reader, out io.Writer, logger *slog.Logger) error {
	return serve(ctx, in, out, where{}, logger)
}

// where is how a node is reached. The zero value is at fabric's default address.
type where struct {
	listen string // the address that others dial
	attach string // or where it attaches to another node
}

// serve is Child, or Join, whose node is somewhere else.
func serve(ctx context.Context, in io.Reader, out io.Writer, at where, logger *slog.Logger) error {
	ctx, orders := child.Orders[order](ctx, in)
	s := &nodeServer{orders: orders, out: json.NewEncoder(out), at: at, logger: logger}
	err := s.serve(ctx)
	if ctx.Err() != nil {
		return nil // the parent has what it wants, or is gone
	}
	return err
}

// A nodeServer is one node's end of the conversation.
type nodeServer struct {
	orders <-chan order
	at     where
	logger *slog.Logger

	mu  sync.Mutex
	out *json.Encoder
}

// say tells the parent. One that is gone ends the context, so that nobody has to
// look at the error.
func (s *nodeServer) say(w word) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Encode(w)
}

func (s *nodeServer) serve(ctx context.Context) error {
	o, err := child.Next(ctx, s.orders)
	if err != nil || o.Spec == nil {
		return errors.Join(err, errors.New("the first order is no spec"))
	}
	if breaksLinks(o.Spec.Faults) {
		logs.Hush(s.logger)
	}
	var dir directory.Service // of the node that it attaches to, if it does
	if s.at.attach == "" {
		client, err := directory.Dial(ctx, o.Spec.Directory, directory.Options{Logger: s.logger})
		if err != nil {
			return s.fail(ctx, err)
		}
		defer client.Close()
		dir = client
	}
	m, err := openMember(ctx, *o.Spec, s.at, dir, s.logger)
	if err != nil {
		return s.fail(ctx, err)
	}
	defer m.close()
	if err := s.say(word{Ready: true}); err != nil {
		return err
	}
	o, err = child.Next(ctx, s.orders)
	switch {
	case err != nil:
		return err
	case o.Stop: // before anything began
		if err := s.say(word{Result: &Result{Node: m.spec.Node, Life: m.spec.Life}}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	case o.Start == 0:
		return errors.New("the second order is no start")
	}
	m.clock = startedAt(o.Start)
	s.run(ctx, m)
	return nil
}

// run runs the node, tells progress meanwhile and the result then, and answers
// questions until ctx ends. An order to stop ends the running.
func (s *nodeServer) run(ctx context.Context, m *member) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		m.clock.until(running, 0)
		r := m.run(running)
		logs.Hush(s.logger)
		s.say(word{Result: &r})
	})
	questions := newQuestions(m, s.say)
	defer questions.wait()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	var accounts <-chan time.Time
	if m.spec.kills() {
		ticker := time.NewTicker(accountInterval)
		defer ticker.Stop()
		accounts = ticker.C
	}
	finish := sync.OnceFunc(func() { close(m.over) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-accounts:
			r := m.account()
			s.say(word{Account: &r})
		case <-ticker.C:
			n := m.received()
			s.say(word{Received: &n})
		case o := <-s.orders:
			switch {
			case o.Stop:
				stop()
			case o.Finish:
				finish()
			case o.Question != nil:
				questions.ask(ctx, o.Ask, *o.Question)
			case o.Drop != 0:
				questions.drop(o.Drop)
			}
		}
	}
}

// questions are those that a node has not answered yet. Each has a goroutine,
// which ends with the answer, with ctx, or when the question is dropped.
type questions struct {
	member *member
	say    func(word) error
	open   sync.WaitGroup

	mu    sync.Mutex
	drops map[uint64]context.CancelFunc
}

func newQuestions(m *member, say func(word) error) *questions {
	return &questions{member: m, say: say, drops: make(map[uint64]context.CancelFunc)}
}

func (q *questions) ask(ctx context.Context, id uint64, what question) {
	ctx, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	q.drops[id] = cancel
	q.mu.Unlock()
	q.open.Go(func() {
		defer q.drop(id)
		if seen, err := q.member.answer(ctx, what); err == nil {
			q.say(word{Answer: id, Sight: seen})
		}
	})
}

func (q *questions) drop(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cancel := q.drops[id]; cancel != nil {
		cancel()
		delete(q.drops, id)
	}
}

func (q *questions) wait() { q.open.Wait() }

// fail tells the parent why, and waits for it to take note.
func (s *nodeServer) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err := s.say(word{Failed: err.Error(), Unreachable: errors.Is(err, directory.ErrUnavailable)}); err != nil {
		return fmt.Errorf("telling the parent: %w", err)
	}
	<-ctx.Done()
	return nil
}
