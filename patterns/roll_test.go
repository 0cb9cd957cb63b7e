package patterns

import (
	"errors"
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

// A roll of 2 producers and 2 consumers, of which this node, a, has 1 consumer.
func TestRoll(t *testing.T) {
	for _, c := range []struct {
		name   string
		events string // p: producer, c: consumer; -: it goes
		want   string // the promised producers, "" if not complete
	}{
		{"all", "pb pc ca cb", "[b/0 c/0]"},
		{"no consumers yet", "pb pc ca", ""},
		{"a producer short", "pb ca cb", ""},
		{"not this node's own", "pb pc cb cc", ""},
		{"a consumer went", "pb pc ca cb -cb", ""},
		{"a consumer was replaced", "pb pc ca cb -cb cc", "[b/0 c/0]"},
		{"a producer has finished and gone", "pb -pb pc ca cb", "[b/0 c/0]"},
		{"a producer came back", "pb -pb pb ca cb", ""},
		{"a producer was replaced", "pb -pb pc pd ca cb", "[c/0 d/0]"},
		{"one producer too many has been here", "pb -pb pc -pc pd ca cb", ""},
		{"too many producers", "pb pc pd", "refused d"},
		{"too many consumers", "cb cc ca", "refused a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := newShape("a", ExchangeConfig{Channel: "x", Consumers: 1, TotalProducers: 2, TotalConsumers: 2})
			if err != nil {
				t.Fatal(err)
			}
			r := newRoll(s)
			got := ""
			for _, e := range events(c.events) {
				var refused *ShapeError
				if err := r.note(e); errors.As(err, &refused) {
					got = "refused " + refused.Member.Node
				}
			}
			if r.complete() {
				got = fmt.Sprint(r.promised())
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func events(text string) (list []directory.Event) {
	kind := directory.Added
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '-':
			kind = directory.Removed
		case 'p', 'c':
			role := directory.Producer
			if text[i] == 'c' {
				role = directory.Consumer
			}
			i++
			list = append(list, directory.Event{Kind: kind, Member: directory.Member{Channel: "x", Role: role, Node: text[i : i+1]}})
			kind = directory.Added
		}
	}
	return list
}
