package etcd

import (
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// What one name's registration is in a table that does one thing at a time.
//
// Two kinds of operation have no answer by which their moment could be told: a
// lease that ends, and a question whose asker does not know what became of it.
// They may take effect at any moment from their beginning on; at the end of the
// history that comes to none at all. A lease that was begun anew ends no more.

type verb string

const (
	register verb = "register" // a new life
	resume   verb = "resume"   // the same life, over another connection
	lookUp   verb = "look up"
	renew    verb = "renew"
	leave    verb = "leave"
	expire   verb = "expire" // a lease that was not renewed ends
	lose     verb = "lose"   // a connection ends: its nodes are orphans
)

// question is an operation's input.
type question struct {
	verb        verb
	id          int // unique in a history
	of          int // for expire: the question that began the lease
	session     string
	endpoint    string
	incarnation uint64
}

// reply is its output.
type reply struct {
	unknown     bool   // what became of it
	refusal     string // the error's code, or "unknown" for a renewal
	incarnation uint64
	endpoint    string
}

// state is a name.
type state struct {
	there       bool
	incarnation uint64 // 0: of a registration whose outcome was not told
	endpoint    string
	session     string // that joined it last
	renewed     int    // the question that began its lease anew last
	orphan      bool   // the session has ended
	maybe       bool   // the session may have ended
	last        uint64 // the greatest incarnation so far, without those that were not told
	untold      bool   // there was one that was not told
	left        bool   // last does not come back
}

var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return s.(state).step(in.(question), out.(reply)) },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v: %+v", in, out)
	},
}

func (s state) step(q question, r reply) (legal bool, next state) {
	switch q.verb {
	case register, resume:
		return s.join(q, r)
	case lookUp:
		if r.refusal != "" {
			return !s.there, s
		}
		if !s.there || s.endpoint != r.endpoint {
			return false, s
		}
		return s.is(r.incarnation)
	case renew:
		if s.there && s.session == q.session {
			if same, told := s.is(q.incarnation); same {
				told.renewed = q.id
				return r.refusal == "", told
			}
		}
		return r.refusal != "" || r.unknown, s
	case leave:
		return s.leave(q, r)
	case expire:
		if s.there && s.renewed == q.of {
			return true, s.gone(false)
		}
		return true, s
	case lose:
		if s.there && s.session == q.session {
			s.orphan = true
		}
		return true, s
	}
	return false, s
}

// is reports whether the registration can be that life, which is known then.
func (s state) is(incarnation uint64) (bool, state) {
	if s.incarnation == 0 && incarnation > s.last {
		s.incarnation, s.last = incarnation, incarnation
	}
	return s.incarnation == incarnation, s
}

// gone is the name after its registration's end.
func (s state) gone(left bool) state {
	return state{last: s.last, untold: s.untold || s.incarnation == 0, left: left}
}

func (s state) join(q question, r reply) (bool, state) {
	free := !s.there || s.orphan
	next := state{there: true, endpoint: q.endpoint, session: q.session, renewed: q.id, last: s.last,
		untold: s.untold || s.there && s.incarnation == 0}
	same := s.there && q.verb == resume && s.endpoint == q.endpoint
	if same {
		if same, s = s.is(q.incarnation); same {
			next = s
			next.session, next.renewed, next.orphan, next.maybe = q.session, q.id, false, false
		}
	}
	old := q.verb == resume && !same && (q.incarnation < s.last || q.incarnation == s.last && !s.there && s.left)
	another := q.verb == resume && !same && q.incarnation == s.last && s.there // by its endpoint
	switch {
	case r.unknown: // it has ended, and its connection with it
		if !same && (old || another || !free && !s.maybe) {
			return true, s
		}
		if !same {
			next.incarnation = q.incarnation // 0 of a new life
			next.last = max(next.last, q.incarnation)
		}
		next.maybe = true
		return true, next
	case r.refusal == "stale":
		return old || !same && (s.untold || s.there && s.incarnation == 0), s
	case r.refusal == "name_taken":
		return s.there && !same, s
	case r.refusal != "":
		return false, s
	case same:
		return r.incarnation == q.incarnation, next
	case !free && !s.maybe || old || another || q.verb == register && r.incarnation <= s.last:
		return false, s
	}
	next.incarnation, next.last = r.incarnation, r.incarnation
	return true, next
}

func (s state) leave(q question, r reply) (bool, state) {
	same, told := s.is(q.incarnation)
	held := s.there && same && s.session == q.session
	switch {
	case r.unknown && held, r.refusal == "" && held:
		return true, told.gone(true)
	case r.unknown, r.refusal == "" && !s.there:
		return true, s
	case r.refusal == "stale":
		return s.there && s.incarnation != q.incarnation, s
	case r.refusal == "not_joined":
		return s.there && same && s.session != q.session, told
	}
	return false, s
}

// legal checks one name's history.
func legal(history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model, slices.Clone(history), patience)
}
