package main

import "fmt"

// placement is where the two processes of a round trip run. What a wake-up costs differs by several times between a thread
// on the waker's own CPU and one on another that has gone to sleep, and where the system puts two processes is chance: two
// peers are compared on the same CPUs, and left to the system only for information.
type placement string

const (
	anywhere placement = "as it comes"
	together placement = "one CPU"
	apart    placement = "two CPUs"
)

// ourCPUs are those that this process may run on; none where that is not known, or a process cannot be kept on one.
var ourCPUs = allowedCPUs()

// placements are those that can be had here.
func placements() []placement {
	return []placement{anywhere, together, apart}[:1+min(2, len(ourCPUs))]
}

// cpus are those of the first process and of the one opposite; nil leaves them to the system.
func (p placement) cpus() []int {
	switch p {
	case together:
		return []int{ourCPUs[0], ourCPUs[0]}
	case apart:
		return ourCPUs[:2]
	}
	return nil
}

// flag is the same as zfab bench takes it.
func (p placement) flag() []string {
	c := p.cpus()
	if c == nil {
		return nil
	}
	return []string{"--cpus", fmt.Sprintf("%d,%d", c[0], c[1])}
}
