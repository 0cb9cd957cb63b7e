//go:build !linux

package bench

import (
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
)

func cpuOf([]*child.Process) (sum time.Duration, known bool) { return 0, false }
