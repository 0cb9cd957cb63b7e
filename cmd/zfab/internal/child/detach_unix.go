//go:build unix

package child

import (
	"os/exec"
	"syscall"
)

// detach keeps the signals that a terminal sends to its foreground from the
// child.
func detach(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
