package transport

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerUser is the user of the process at the other end of a unix socket, when it connected.
func peerUser(nc net.Conn) (uid uint32, known bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	if rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }) != nil || err != nil {
		return 0, false
	}
	return cred.Uid, true
}
