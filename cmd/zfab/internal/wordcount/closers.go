package wordcount

import (
	"io"
	"slices"
	"sync"
)

// closers are what is to be closed in the end, the last opened first.
type closers struct {
	mu  sync.Mutex
	all []io.Closer
}

func (c *closers) add(one io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, one)
}

func (c *closers) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range slices.Backward(c.all) {
		one.Close()
	}
	c.all = nil
}
