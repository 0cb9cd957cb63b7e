package patterns

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/zfab/zfab/fabric"
)

func TestDistributeServesThoseWithRoomFirst(t *testing.T) {
	broken := errors.New("broken")
	tries := []error{nil, fabric.ErrHighWater, broken, nil, fabric.ErrHighWater, nil}
	sends := map[int]error{1: broken}
	var order, failed []string
	distribute(len(tries), func(i int) error {
		order = append(order, fmt.Sprint("try ", i))
		return tries[i]
	}, func(i int) error {
		order = append(order, fmt.Sprint("send ", i))
		return sends[i]
	}, func(i int, err error) { failed = append(failed, fmt.Sprint(i, err)) })
	if want := []string{"try 0", "try 1", "try 2", "try 3", "try 4", "try 5", "send 1", "send 4"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if want := []string{"2 broken", "1 broken"}; !slices.Equal(failed, want) {
		t.Errorf("failed %q, want %q", failed, want)
	}
}
