package patterns

import "github.com/zfab/zfab/fabric"

// distribute gives something to all of n. try gives it to one that has room;
// those for which it returns fabric.ErrHighWater get it from send, which waits,
// when all others have it. It goes on after one that fails, with word to failed.
func distribute(n int, try, send func(i int) error, failed func(i int, err error)) {
	var full []int
	for i := range n {
		if err := try(i); err == fabric.ErrHighWater {
			full = append(full, i)
		} else if err != nil {
			failed(i, err)
		}
	}
	for _, i := range full {
		if err := send(i); err != nil {
			failed(i, err)
		}
	}
}
