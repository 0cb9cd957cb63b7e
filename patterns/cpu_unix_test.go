//go:build unix

package patterns

import (
	"syscall"
	"time"
)

// cpuTime is the processor time that this process has taken: what a busy machine
// changes little.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
