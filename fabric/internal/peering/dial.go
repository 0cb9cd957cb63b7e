package peering

import "time"

// Waits before dials.
const (
	// RedialMin bounds the random wait before a link that broke is dialled
	// again. Each failure doubles the bound, up to RedialMax.
	RedialMin = 50 * time.Millisecond
	RedialMax = 5 * time.Second
	// Deference is what the node with the greater name waits for the other to
	// dial first.
	Deference = 100 * time.Millisecond
)

// Expect says that the peer may want the link as well: it has consumers of what
// is produced here.
func (p *Peering) Expect() { p.expected = true }

// StartDialing begins to dial if own wants a connection, none is there, the peer
// has not closed, and nobody dials yet; after the wait it returns. draw is random,
// from 0 to below 1.
func (p *Peering) StartDialing(wanted bool, draw float64) (wait time.Duration, ok bool) {
	if p.dialing || !p.dials(wanted) {
		return 0, false
	}
	p.dialing = true
	switch {
	case p.connection > 0:
		// Many links break at once where a switch or a host fails.
		return p.jitter(draw), true
	case p.expected && p.own > p.peer:
		return Deference, true
	}
	return 0, true
}

// dials reports whether there is a reason to dial, and a place.
func (p *Peering) dials(wanted bool) bool {
	return wanted && !p.taken && p.endpoint != "" && !p.Closed()
}

// NextDial returns where to dial now. It reports false, and dialling is over, if
// there is a connection, own wants none, or the peer has closed.
func (p *Peering) NextDial(wanted bool) (endpoint string, ok bool) {
	if !p.dials(wanted) {
		p.dialing = false
		return "", false
	}
	p.dialled = p.listed
	return p.endpoint, true
}

// DialFailed says that a dial came to nothing, and returns the wait before the
// next one. draw is random, from 0 to below 1.
func (p *Peering) DialFailed(draw float64) time.Duration {
	wait := p.jitter(draw)
	p.failures++
	return wait
}

// Failures is how many dials have failed since there was a connection.
func (p *Peering) Failures() int { return p.failures }

// jitter is a random wait of which nothing is fixed but the bound, so that
// nodes which fail together do not try again together.
func (p *Peering) jitter(draw float64) time.Duration {
	bound := RedialMax
	if p.failures < 8 { // 50 ms doubled 7 times is beyond 5 s
		bound = min(RedialMin<<p.failures, RedialMax)
	}
	return time.Duration(draw * float64(bound))
}
