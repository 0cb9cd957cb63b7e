//go:build unix && (!linux || race)

package transport

import (
	"net"
	"syscall"
)

func readDirect(fd uintptr, p []byte) (int, error)  { return syscall.Read(int(fd), p) }
func writeDirect(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }

// readBothDirect reads into the first of to only.
func readBothDirect(fd uintptr, to *[2][]byte) (int, error) { return readDirect(fd, to[0]) }

func newVectorWriter(net.Conn) vectorWriter { return nil }
