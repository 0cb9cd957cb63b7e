package directory_test

import (
	"fmt"
	"testing"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// Whom the directory names for a key is to whom a producer's SendKey goes.
func TestByKeyNamesTheConsumerThatSendKeyReaches(t *testing.T) {
	for n := 1; n < 20; n++ {
		var consumers []fabric.Address
		var candidates []directory.Candidate
		for i := range n {
			a := fabric.Address{Node: fmt.Sprintf("n%02d", i/3), Index: i % 3}
			consumers = append(consumers, a)
			candidates = append(candidates, directory.Candidate{Member: directory.Member{
				Channel: "c", Role: directory.Consumer, Node: a.Node, Index: a.Index,
			}})
		}
		placement := fabric.Place(consumers)
		var chooser directory.Chooser
		for k := range 2000 {
			key := fmt.Appendf(nil, "key-%d", k)
			got := chooser.Choose(candidates, directory.Query{Policy: directory.ByKey, Key: key}, 0)
			if want := placement.Owner(key); got != want {
				t.Fatalf("of %d consumers, key %s: chosen %d, SendKey goes to %d", n, key, got, want)
			}
		}
	}
}
