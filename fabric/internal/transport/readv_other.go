//go:build unix && !linux

package transport

import "syscall"

// readBoth reads into the first of to only: not every system's call for both can be reached from Go.
func readBoth(fd int, to *[2][]byte) (int, error) { return syscall.Read(fd, to[0]) }
