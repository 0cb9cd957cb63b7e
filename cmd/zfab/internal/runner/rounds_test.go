package runner

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

// A message's round can be told from its stamp, whoever sent it to whom.
func TestRoundsOfMessages(t *testing.T) {
	for _, turns := range []turns{{1, 1}, {1, 5}, {4, 1}, {4, 4}, {4, 10}, {7, 3}, {3, 100}} {
		for producer := range 5 {
			sent := make([]uint64, turns.consumers)
			for n := range 200 {
				c := turns.consumer(producer, n)
				stamp := check.Stamp{Producer: uint32(producer), Consumer: uint32(c), Sequence: sent[c]}
				sent[c]++
				if got, want := turns.roundOf(stamp), uint64(n/turns.round); got != want {
					t.Fatalf("%+v: message %d of producer %d is of round %d, want %d", turns, n, producer, got, want)
				}
			}
		}
	}
}

// Messages that come in another round than their own are found: one node takes rounds
// to be shorter than the other does.
func TestMessagesInAnotherRoundAreReordered(t *testing.T) {
	c := small["rounds"]
	r, err := newRun(parse(t, smallRun(c.channel, c.load)), Options{Kind: Embedded, Logger: slog.New(slog.DiscardHandler)}, false)
	if err != nil {
		t.Fatal(err)
	}
	r.specs[0].Channels = slices.Clone(r.specs[0].Channels)
	r.specs[0].Channels[0].Round--
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	defer r.close()
	if err := r.open(ctx); err != nil {
		t.Fatal(err)
	}
	r.run(ctx, time.Now())
	if got := judge([]*oneRun{r}, Embedded); got.Outcome != report.Failed || got.Messages.Reordered == 0 || got.Messages.Lost != 0 {
		t.Errorf("%s: %+v, %v", got.Outcome, got.Messages, got.Problems)
	}
}
