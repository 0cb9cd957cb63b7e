package wordcount

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestATallyTellsNowAndThenAndNeverLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []int
		r := &tally{every: 100 * time.Millisecond, tell: func(n int) { told = append(told, n) }}
		for range 25 {
			r.add(2)
			time.Sleep(10 * time.Millisecond)
		}
		if want := []int{2, 22, 42}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
	(&tally{}).add(1) // nobody asks
}
