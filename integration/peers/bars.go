package main

import (
	"cmp"
	"fmt"
	"math"
)

// bar is a ratio to peer that the project holds itself to.
type bar struct {
	size   int       // bytes; 0 for the round trip's median
	on     placement // of the round trip
	of     string    // whose; "" is zfab
	peer   string
	bound  float64
	atMost bool // the ratio may not exceed bound; else it must reach it
}

var bars = []bar{
	{size: 64, peer: "libzmq", bound: 5},
	{size: 64, peer: "yamux", bound: 0.5}, // payload bytes on both sides, not what yamux adds
	{size: 1 << 10, peer: "libzmq", bound: 4},
	{size: 64 << 10, peer: "raw", bound: 0.85},
	{size: 1 << 20, peer: "raw", bound: 0.85},
	{on: together, peer: "raw", bound: 1.6, atMost: true},
	{on: apart, peer: "raw", bound: 1.6, atMost: true},
	{on: together, of: calls, peer: "raw", bound: 1.8, atMost: true},
	{on: apart, of: calls, peer: "raw", bound: 1.8, atMost: true},
}

// barResult is a bar and where zfab stands.
type barResult struct {
	Bar   string   `json:"bar"`
	Ratio *float64 `json:"ratio"` // null if either side was not measured
	State string   `json:"state"` // met, missed, unmeasured
}

func (b bar) String() string {
	if b.size == 0 {
		what := "round trip"
		if b.of != "" {
			what += " of " + b.of
		}
		return fmt.Sprintf("%s p50, %s: at most %g x %s", what, b.on, b.bound, b.peer)
	}
	return fmt.Sprintf("%s: at least %g x %s", bytesText(b.size), b.bound, b.peer)
}

func (b bar) judge(m *measurements) barResult {
	q := b.ratio(m)
	res := barResult{Bar: b.String(), Ratio: number(q)}
	switch {
	case math.IsNaN(q):
		res.State = "unmeasured"
	case b.atMost && q <= b.bound, !b.atMost && q >= b.bound:
		res.State = "met"
	default:
		res.State = "missed"
	}
	return res
}

func (b bar) ratio(m *measurements) float64 {
	if b.size == 0 {
		return ratio(m.p50[trip{cmp.Or(b.of, "zfab"), b.on}], m.p50[trip{b.peer, b.on}])
	}
	return ratio(m.perSecond[point{"zfab", b.size}], m.perSecond[point{b.peer, b.size}])
}
