package runner

import (
	"reflect"
	"testing"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
)

// What is known of a stream only grows: the fabric's word on a stream that has
// just failed and begun anew must not hide what was acknowledged before.
func TestAccountsOnlyGrow(t *testing.T) {
	tell := func(streams ...SentStream) Result {
		return Result{Producers: []ProducerResult{{Channel: "a", Streams: streams}}}
	}
	n := new(nodeProcess)
	n.accounted(tell(SentStream{Consumer: 1, Accepted: 50, Acknowledged: 40}))
	n.accounted(tell(SentStream{Consumer: 1, Accepted: 0, Acknowledged: 0}, SentStream{Consumer: 2, Accepted: 3}))
	want := tell(SentStream{Consumer: 1, Accepted: 50, Acknowledged: 40}, SentStream{Consumer: 2, Accepted: 3})
	if got := n.told(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	over := SentStream{Consumer: 1, Accepted: 49, Acknowledged: 39, InDoubtTo: 49, Over: true} // the last word is the error's
	n.accounted(tell(over, SentStream{Consumer: 1, Epoch: 1, Accepted: 7}))
	want = tell(over, SentStream{Consumer: 1, Epoch: 1, Accepted: 7})
	if got := n.told(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestHasReached(t *testing.T) {
	from := Result{Node: 2, Life: 1, Producers: []ProducerResult{{}}}
	stream := func(producer, life int, next uint64) check.StreamState {
		return check.StreamState{Producer: producer, Epoch: check.NewEpoch(life, 3), Next: next}
	}
	for name, c := range map[string]struct {
		consumers [][]check.StreamState
		want      bool
	}{
		"nothing told":         {nil, false},
		"nothing came":         {[][]check.StreamState{nil}, false},
		"it came":              {[][]check.StreamState{{stream(0, 0, 9), stream(1, 1, 1)}}, true},
		"of the life before":   {[][]check.StreamState{{stream(1, 0, 9)}}, false},
		"of another node":      {[][]check.StreamState{{stream(0, 1, 9)}}, false},
		"to one of two":        {[][]check.StreamState{{stream(1, 1, 9)}, {stream(1, 0, 9)}}, false},
		"to both, and earlier": {[][]check.StreamState{{stream(1, 1, 9)}, {stream(1, 0, 9), stream(1, 1, 2)}}, true},
	} {
		to := Result{Node: 1}
		for _, streams := range c.consumers {
			to.Consumers = append(to.Consumers, ConsumerResult{Streams: streams})
		}
		if got := hasReached(from, to); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if hasReached(Result{Node: 2}, Result{Node: 1, Consumers: []ConsumerResult{{}}}) {
		t.Error("of a node that has told nothing")
	}
}
