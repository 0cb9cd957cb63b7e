//go:build linux && !race

package transport

import (
	"sync/atomic"
	"syscall"
	"time"
)

// While a process is idle the monitor of Go's scheduler sleeps until the next timer, unless a system call wakes it, and
// direct calls do not. A goroutine that gets work then and computes would be interrupted by nobody: with as many of them
// as there are processors (GOMAXPROCS), no other goroutine would run, and nobody would look for what has arrived.
//
// So as long as there are direct calls there is a timer as well, by which the monitor wakes whenever it sleeps. The first
// of them, for which it may sleep already, wakes it with a call of the ordinary kind. The timer fires as often as the
// monitor would interrupt a computation: 100 times a second while something is read or written, else not at all.

const pulseEvery = 10 * time.Millisecond

var (
	pulseSeen  atomic.Bool // a direct call since the timer fired last
	pulseBeats atomic.Bool // there is a timer
)

// pulse is called with each direct call.
func pulse() {
	if !pulseSeen.Load() {
		pulseSeen.Store(true)
		if startPulse() {
			syscall.Syscall(syscall.SYS_GETPID, 0, 0, 0)
		}
	}
}

func startPulse() (first bool) {
	first = pulseBeats.CompareAndSwap(false, true)
	if first {
		time.AfterFunc(pulseEvery, beat)
	}
	return first
}

// beat is the timer's.
func beat() {
	seen := pulseSeen.Swap(false)
	pulseBeats.Store(false)
	if seen || pulseSeen.Load() {
		startPulse()
	}
}
