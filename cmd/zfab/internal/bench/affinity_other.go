//go:build !linux

package bench

import (
	"fmt"
	"runtime"
)

func stayOn(int) error { return fmt.Errorf("a process cannot be kept on one CPU on %s", runtime.GOOS) }
