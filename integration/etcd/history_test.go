package etcd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// history records what some clients ask of one name, and what they are told.
type history struct {
	name  string
	began time.Time

	mu         sync.Mutex
	operations []porcupine.Operation
	last       int            // question
	expired    int            // look-ups and renewals that found a lease over
	calls      map[verb]int   // answered
	refused    map[string]int // by code
	unknown    int            // without an answer
	broken     error          // something that no directory says
}

func newHistory(name string) *history {
	return &history{name: name, began: time.Now(), calls: map[verb]int{}, refused: map[string]int{}}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

const never = math.MaxInt64

func (h *history) number() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	return h.last
}

func (h *history) record(client int, q question, call int64, r reply, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, porcupine.Operation{ClientId: client, Input: q, Call: call, Output: r, Return: end})
	switch {
	case r.unknown:
		h.unknown++
	case q.verb != expire && q.verb != lose:
		h.calls[q.verb]++
		if r.refusal != "" {
			h.refused[string(q.verb)+": "+r.refusal]++
		}
	}
}

// client is one who asks. It has a connection to one directory at a time for
// what it changes, and looks up over it or over one to another directory.
type client struct {
	number    int
	rng       *rand.Rand
	history   *history
	addresses []string
	lease     time.Duration // no lease is shorter
	stale     bool          // planted: look-ups are answered from memory

	asker    *asker
	alive    int64 // when the asker's connection was there for sure
	sessions int
	held     uint64 // the incarnation that it has; 0: none
	latest   uint64 // that it had
	renewed  int    // the question that began the lease anew last
	since    int64
	memory   *reply
}

func newClient(h *history, number int, addresses []string, lease time.Duration) *client {
	return &client{
		number: number, rng: rand.New(rand.NewPCG(uint64(number), uint64(len(h.name)))), history: h,
		addresses: addresses, lease: lease,
	}
}

func (c *client) endpoint() string { return fmt.Sprintf("tcp://client:%d", c.number) }

// connect finds a directory that is there, if there is one now.
func (c *client) connect() bool {
	if c.asker != nil {
		return true
	}
	c.sessions++
	a, err := newAsker(c.addresses[c.rng.IntN(len(c.addresses))], fmt.Sprintf("%d.%d", c.number, c.sessions))
	if err != nil {
		return false
	}
	c.asker, c.alive = a, c.history.now()
	return true
}

// drop gives the connection up. The directory may have noticed its end before.
func (c *client) drop() {
	c.history.record(c.number, question{verb: lose, id: c.history.number(), session: c.asker.session}, c.alive, reply{}, never)
	c.asker.close()
	c.asker = nil
}

// begun notes that a lease began anew, and that it may end.
func (c *client) begun(id int, call int64) {
	if c.since+int64(c.lease) < c.history.now() { // else it was begun anew before it could end
		c.ends()
	}
	c.renewed, c.since = id, call
}

// ends records that the lease may end.
func (c *client) ends() {
	if c.renewed != 0 {
		q := question{verb: expire, id: c.history.number(), of: c.renewed}
		c.history.record(c.number, q, c.since+int64(c.lease), reply{}, never)
	}
}

// ask asks over the client's connection, and records it.
func (c *client) ask(q question, body map[string]any) (reply, bool) {
	q.id, q.session = c.history.number(), c.asker.session
	call := c.history.now()
	got, err := c.asker.ask(body)
	r := reply{refusal: got.Error, incarnation: got.Incarnation}
	switch {
	case err != nil:
		r = reply{unknown: true}
	case q.verb == lookUp && got.Error == "":
		if r, err = node(got); err != nil {
			c.history.mu.Lock()
			c.history.broken = err
			c.history.mu.Unlock()
		}
	case q.verb == renew && len(got.Unknown) > 0:
		r.refusal = "unknown"
	}
	end := c.history.now()
	if r.unknown {
		end = never
	}
	if q.verb != lookUp || !r.unknown { // a look-up without an answer says nothing
		c.history.record(c.number, q, call, r, end)
	}
	if (q.verb == register || q.verb == resume || q.verb == renew) && r.refusal == "" {
		c.begun(q.id, call)
	}
	if r.unknown {
		c.drop()
		return r, false
	}
	c.alive = call
	return r, true
}

// node is what a look-up was answered.
func node(a answer) (r reply, err error) {
	if len(a.Nodes) != 1 || len(a.Nodes[0]) < 3 {
		return reply{}, fmt.Errorf("answered %v", a.Nodes)
	}
	number, ok := asNumber(a.Nodes[0][1])
	endpoint, text := a.Nodes[0][2].(string)
	if !ok || !text {
		return reply{}, fmt.Errorf("answered %v", a.Nodes)
	}
	return reply{incarnation: number, endpoint: endpoint}, nil
}

// asNumber reads a number of whatever width it came in.
func asNumber(v any) (uint64, bool) {
	switch n := v.(type) {
	case int8:
		return uint64(n), n >= 0
	case uint8:
		return uint64(n), true
	case uint16:
		return uint64(n), true
	case uint32:
		return uint64(n), true
	case uint64:
		return n, true
	case int64:
		return uint64(n), n >= 0
	}
	return 0, false
}

func (c *client) register() {
	r, ok := c.ask(question{verb: register, endpoint: c.endpoint()},
		map[string]any{"op": "join", "node": c.history.name, "endpoint": c.endpoint()})
	if ok && r.refusal == "" {
		c.held, c.latest = r.incarnation, r.incarnation
	}
}

func (c *client) resume(incarnation uint64) {
	r, ok := c.ask(question{verb: resume, endpoint: c.endpoint(), incarnation: incarnation},
		map[string]any{"op": "join", "node": c.history.name, "endpoint": c.endpoint(), "incarnation": incarnation})
	switch {
	case ok && r.refusal == "":
		c.held = incarnation
	case ok:
		c.held = 0
	}
}

func (c *client) lookUp() reply {
	if c.stale && c.memory != nil {
		at := c.history.now()
		c.history.record(c.number, question{verb: lookUp, id: c.history.number(), session: "memory"}, at, *c.memory, c.history.now())
		return *c.memory
	}
	r, ok := c.ask(question{verb: lookUp}, map[string]any{"op": "node", "node": c.history.name})
	if ok {
		c.memory = &r
	}
	return r
}

func (c *client) renew() {
	r, ok := c.ask(question{verb: renew, incarnation: c.held},
		map[string]any{"op": "renew", "renewals": []any{[]any{c.history.name, c.held, 0}}})
	if ok && r.refusal != "" {
		if c.history.now()-c.since > int64(c.lease) {
			c.history.mu.Lock()
			c.history.expired++
			c.history.mu.Unlock()
		}
		c.held = 0
	}
}

func (c *client) leave() {
	if _, ok := c.ask(question{verb: leave, incarnation: c.held},
		map[string]any{"op": "leave", "node": c.history.name, "incarnation": c.held}); ok {
		c.held = 0
	}
}

// act does one thing at random.
func (c *client) act(rest time.Duration) {
	if !c.connect() {
		return
	}
	switch n := c.rng.IntN(100); {
	case n < 25, c.held == 0 && n >= 70:
		c.lookUp()
	case n < 30:
		c.drop()
	case c.held == 0 && c.latest != 0 && n < 45:
		c.resume(c.latest)
	case c.held == 0:
		c.register()
	case c.lostSession():
		c.resume(c.held)
	case n < 65:
		c.renew()
	case n < 88:
		c.leave()
	default: // and so lets its lease end
		time.Sleep(rest)
		c.lookUp()
		if c.asker != nil {
			c.renew()
		}
	}
}

// lostSession reports whether it holds what it joined over an earlier connection,
// mostly: to try it all the same is an answer, too.
func (c *client) lostSession() bool { return c.rng.IntN(4) == 0 }

// end gives the rest of the history its end.
func (c *client) end() {
	if c.asker != nil {
		c.drop()
	}
	c.ends()
}
