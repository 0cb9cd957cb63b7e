//go:build !unix

package child

import (
	"errors"
	"os"
	"os/exec"
)

func detach(*exec.Cmd) {}

func stop(*os.Process) error { return errors.ErrUnsupported }

func proceed(*os.Process) error { return errors.ErrUnsupported }
