//go:build unix && (!linux || race)

package transport

import (
	"net"
	"syscall"
)

func readDirect(fd uintptr, p []byte) (int, error)  { return syscall.Read(int(fd), p) }
func writeDirect(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }

func newVectorWriter(net.Conn) vectorWriter { return nil }
