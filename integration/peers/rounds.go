package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// series is one measurement's value in each round; NaN where it failed.
type series []float64

func newSeries(rounds int) series { return slices.Repeat(series{math.NaN()}, rounds) }

// median of the rounds that succeeded, NaN if none did.
func (s series) median() float64 {
	v := slices.DeleteFunc(slices.Clone(s), math.IsNaN)
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// ratio is the median of a/b within each round: the two were measured close together, so drift divides out.
func ratio(a, b series) float64 {
	if len(a) == 0 || len(b) == 0 {
		return math.NaN()
	}
	quotients := make(series, len(a))
	for i := range a {
		quotients[i] = a[i] / b[i]
	}
	return quotients.median()
}

// point is what was measured: a peer, at a size.
type point struct {
	peer string
	size int // bytes
}

// trip is what round trips were measured: of a peer, somewhere.
type trip struct {
	peer string
	on   placement
}

// measurements is what all rounds gave.
type measurements struct {
	perSecond     map[point]series // messages
	p50, p99, max map[trip]series  // microseconds
	failed        []failure
}

type failure struct {
	Peer   string `json:"peer"`
	What   string `json:"what"`
	Round  int    `json:"round"` // from 1
	Reason string `json:"reason"`
}

func newMeasurements() *measurements {
	return &measurements{
		perSecond: map[point]series{},
		p50:       map[trip]series{},
		p99:       map[trip]series{},
		max:       map[trip]series{},
	}
}

// measureAll runs the rounds. A failed measurement is noted and the rest goes on; only the end of ctx ends it early.
func measureAll(ctx context.Context, peers []peer, opt options, progress io.Writer) (*measurements, error) {
	m := newMeasurements()
	fail := func(p peer, what string, round int, err error) {
		m.failed = append(m.failed, failure{p.name(), what, round + 1, err.Error()})
		fmt.Fprintf(progress, "failed %s, %s: %v\n", p.name(), what, err)
	}
	for round := range opt.rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, opt.rounds)
		for _, size := range opt.sizes {
			for _, p := range rotate(peers, round) {
				t, err := p.throughput(ctx, size, opt.duration)
				if errors.Is(err, errNotMeasured) {
					continue
				}
				key := point{p.name(), size}
				if m.perSecond[key] == nil {
					m.perSecond[key] = newSeries(opt.rounds)
				}
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case err != nil:
					fail(p, bytesText(size), round, err)
				default:
					m.perSecond[key][round] = t.messagesPerSecond
				}
			}
		}
		for _, on := range placements() {
			for _, p := range rotate(peers, round) {
				r, err := p.roundTrip(ctx, on, opt.duration)
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case errors.Is(err, errNotMeasured):
					continue
				case err != nil:
					fail(p, "round trip, "+string(on), round, err)
				default:
					m.addRoundTrip(trip{p.name(), on}, round, opt.rounds, r)
				}
			}
		}
	}
	return m, nil
}

func (m *measurements) addRoundTrip(t trip, round, rounds int, r roundTrip) {
	if m.p50[t] == nil {
		m.p50[t], m.p99[t], m.max[t] = newSeries(rounds), newSeries(rounds), newSeries(rounds)
	}
	m.p50[t][round] = r.p50.Seconds() * 1e6
	m.p99[t][round] = r.p99.Seconds() * 1e6
	m.max[t][round] = r.max.Seconds() * 1e6
}

// rotate starts each round with another peer, so that none always has the same one before it.
func rotate(peers []peer, round int) []peer {
	if len(peers) == 0 {
		return nil
	}
	first := round % len(peers)
	return slices.Concat(peers[first:], peers[:first])
}
