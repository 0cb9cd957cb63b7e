package patterns

import (
	"maps"

	"github.com/zfab/zfab/fabric"
)

// meetings is who has answered the hello of one who serves: what came from him before
// was for somebody who had this address earlier. It is the receiving goroutine's.
type meetings struct {
	met    map[fabric.Address]*meeting // by consumers beside the pattern's channel
	number uint64                      // ever
}

// meeting is what is remembered of one of them.
type meeting struct {
	number uint64 // meetings before it
	taken  uint64 // of a pipeline, at most once: jobs that the pusher was not told of
}

// keepMeetings is how many are remembered that are gone: what they had sent may still
// have to be received.
const keepMeetings = 1 << 12

// meet notes an answer. Who has given it may be gone by now: of those that are, it
// forgets who has not come lately.
func (m *meetings) meet(who fabric.Address, known ends) {
	if m.met == nil {
		m.met = make(map[fabric.Address]*meeting)
	}
	m.met[who] = &meeting{number: m.number}
	m.number++
	if len(m.met) > 2*keepMeetings+len(known) {
		maps.DeleteFunc(m.met, func(addr fabric.Address, old *meeting) bool {
			return known[addr] == nil && old.number+keepMeetings < m.number
		})
	}
}

// lose forgets all at a node.
func (m *meetings) lose(node string) {
	maps.DeleteFunc(m.met, func(addr fabric.Address, _ *meeting) bool { return addr.Node == node })
}
