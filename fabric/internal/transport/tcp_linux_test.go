package transport

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpOption reads a socket option of TCP.
func tcpOption(t *testing.T, c *Conn, name int) int {
	t.Helper()
	rc, err := c.nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	value, failed := 0, error(nil)
	if err := rc.Control(func(fd uintptr) { value, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return value
}

func TestTheUserTimeoutIsSetAtBothEnds(t *testing.T) {
	for _, c := range []struct {
		configured   time.Duration
		milliseconds int
	}{
		{0, 30_000}, {8 * time.Second, 8_000}, {1500 * time.Millisecond, 1_500}, {time.Microsecond, 1},
	} {
		d, r := connect(t, "tcp://127.0.0.1:0", Config{UserTimeout: c.configured}, Config{UserTimeout: c.configured})
		for _, end := range []*Conn{d, r} {
			if got := tcpOption(t, end, unix.TCP_USER_TIMEOUT); got != c.milliseconds {
				t.Errorf("UserTimeout %v: the socket of the %s has %d ms, want %d", c.configured, end.cfg.SocketType, got, c.milliseconds)
			}
			if tcpOption(t, end, unix.TCP_NODELAY) == 0 {
				t.Errorf("Nagle's algorithm is on at the %s", end.cfg.SocketType)
			}
		}
	}
}

// A peer that reads nothing for longer than the user timeout, while more waits than its window takes, ends the write
// that waits: nothing else would, if its system goes on answering.
func TestTheUserTimeoutEndsAWriteThatThePeerDoesNotTake(t *testing.T) {
	const timeout = 300 * time.Millisecond
	d, _ := connect(t, "tcp://127.0.0.1:0", Config{UserTimeout: timeout}, Config{})
	began := time.Now()
	var err error
	for p := make([]byte, 1<<20); err == nil; {
		err = d.WriteMessage(p)
	}
	if took := time.Since(began); took < timeout || took > patience/2 {
		t.Errorf("the write ended after %v with %v", took, err)
	}
}
