package bench

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
)

// tick is the unit in which the kernel tells CPU times: USER_HZ is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// cpuOf is the CPU time that the processes have used in all, if the system tells.
func cpuOf(all []*child.Process) (sum time.Duration, known bool) {
	for _, p := range all {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/stat")
		if err != nil {
			return 0, false
		}
		// The name, in parentheses, may hold anything; utime and stime are the 12th
		// and 13th fields behind it.
		_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, false
		}
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, false
			}
			sum += time.Duration(ticks) * tick
		}
	}
	return sum, true
}
