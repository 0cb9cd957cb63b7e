package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout is RFC 5482's USER TIMEOUT. The system counts in milliseconds, and 0 would be its own default.
func setUserTimeout(tc *net.TCPConn, d time.Duration) {
	rc, err := tc.SyscallConn()
	if err != nil {
		return
	}
	rc.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((d+time.Millisecond-1)/time.Millisecond))
	})
}
