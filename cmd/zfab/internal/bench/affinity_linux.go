package bench

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// stayOn keeps this process on one CPU: every thread that it has, and so every
// thread that those start.
func stayOn(cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		// A thread that has ended meanwhile needs no CPU.
		if err := unix.SchedSetaffinity(id, &only); err != nil && err != unix.ESRCH {
			return fmt.Errorf("CPU %d: %w", cpu, err)
		}
	}
	return nil
}
