package patterns

import "time"

// absence is since when somebody was seen without connection; zero if he has one. It
// is under the lock of whoever has it.
type absence struct{ since time.Time }

// look notes whether he is there, and returns for how long he was seen not to be.
func (a *absence) look(there bool, now time.Time) time.Duration {
	switch {
	case there:
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = now
	default:
		return now.Sub(a.since)
	}
	return 0
}

// lookEvery is how often to look, for who goes by an absence longer than patience.
func lookEvery(patience time.Duration) time.Duration {
	return min(max(patience/4, minPatience), time.Second)
}
