package fabric

import (
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfab/zfab/fabric/directory"
)

// A link's sockets give up within the heartbeat timeout, at both ends: what is
// written an interval after the peer's system was last heard does not wait longer
// than until then.
func TestLinksEndWithinTheHeartbeatTimeoutInTheKernelToo(t *testing.T) {
	dir := directory.NewRegistry()
	const interval, timeout, want = 321 * time.Millisecond, 4321 * time.Millisecond, 4000
	a := openWith(t, Config{Name: "a", Directory: dir, HeartbeatInterval: interval, HeartbeatTimeout: timeout})
	b := openWith(t, Config{Name: "b", Directory: dir, HeartbeatInterval: interval, HeartbeatTimeout: timeout})
	c := newConsumer(t, b, "x", ConsumerConfig{})
	p := newProducer(t, a, "x", ProducerConfig{})
	ctx := testContext(t)
	if err := p.Send(ctx, Address{"b", 0}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(a.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(at.Port())
	sockets, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	ends := 0
	for _, s := range sockets {
		fd, _ := strconv.Atoi(s.Name())
		if portOf(unix.Getpeername(fd)) != port && (portOf(unix.Getsockname(fd)) != port || portOf(unix.Getpeername(fd)) == 0) {
			continue
		}
		ends++
		if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || got != want {
			t.Errorf("socket %d of the link: user timeout of %d ms (%v), want %d", fd, got, err, want)
		}
	}
	if ends != 2 {
		t.Errorf("%d sockets belong to the link, want one at each end", ends)
	}
}

// portOf is an address's TCP port, 0 if it has none.
func portOf(a unix.Sockaddr, err error) int {
	if in, ok := a.(*unix.SockaddrInet4); ok && err == nil {
		return in.Port
	}
	return 0
}
