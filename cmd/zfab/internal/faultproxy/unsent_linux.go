package faultproxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// awaitSent waits until the kernel at the other end has all that was written to
// c, but no longer than patience: a receiver that does not read never has. A
// reset would drop the rest.
func awaitSent(c *net.TCPConn, patience time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(sentInterval) {
		unsent := 0
		err := raw.Control(func(fd uintptr) { unsent, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil || unsent == 0 {
			return
		}
	}
}

const sentInterval = 50 * time.Microsecond // the kernel has no event for it
