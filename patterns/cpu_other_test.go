//go:build !unix

package patterns

import "time"

// cpuTime is the processor time that this process has taken; 0: nobody knows.
func cpuTime() time.Duration { return 0 }
