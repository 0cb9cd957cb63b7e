package transport

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlacesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(3, 2*time.Second)
		for range 3 {
			if err := a.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := a.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a fourth place: %v", err)
		}
		a.giveBack()
		if err := a.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAWaiterGetsAPlaceAsSoonAsOneIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(1, 2*time.Second)
		a.wait(t.Context())
		go func() {
			time.Sleep(7 * time.Millisecond) // the bubble's clock
			a.giveBack()
		}()
		start := time.Now()
		if err := a.wait(t.Context()); err != nil || time.Since(start) != 7*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

// Only when somebody waits, only the oldest, and only after its patience; never one that is finished.
func TestTheOldestIdleHandshakeGivesItsPlaceUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(3, 2*time.Second) // patience: 100 ms
		var evicted []int
		var places []*place
		start := time.Now()
		for i := range 3 {
			a.wait(t.Context())
			places = append(places, a.begin(func(cause error) {
				if cause != ErrCrowded {
					t.Errorf("cause: %v", cause)
				}
				evicted = append(evicted, i)
				go a.giveBack()
			}))
			time.Sleep(10 * time.Millisecond)
		}
		a.finished(places[0])
		time.Sleep(40 * time.Millisecond)
		synctest.Wait()
		if len(evicted) > 0 {
			t.Fatalf("evicted %v although nobody waited", evicted)
		}
		for want, at := range []time.Duration{110 * time.Millisecond, 120 * time.Millisecond} {
			if err := a.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(evicted) != want+1 || evicted[want] != want+1 || time.Since(start) != at {
				t.Fatalf("evicted %v after %v", evicted, time.Since(start))
			}
		}
		a.finished(places[1]) // too late, and harmless
		if a.oldest != nil || a.newest != nil {
			t.Fatal("places are still listed")
		}
	})
}
