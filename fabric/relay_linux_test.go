package fabric

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The system gives the workers' connection with the directory up as soon as the relay does.
func TestUserTimeoutOfTheWorkersConnection(t *testing.T) {
	c := newCluster(t)
	c.host("h1")
	c.worker("h1", "w")
	var timeouts []int
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fd, _ := strconv.Atoi(e.Name())
		peer, err := unix.Getpeername(fd)
		in4, ok := peer.(*unix.SockaddrInet4)
		if err != nil || !ok || net.JoinHostPort(net.IP(in4.Addr[:]).String(), fmt.Sprint(in4.Port)) != strings.TrimPrefix(c.directory, "tcp://") {
			continue
		}
		ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil {
			t.Fatal(err)
		}
		if ms == int(uplinkPatience.Milliseconds()) {
			return
		}
		timeouts = append(timeouts, ms)
	}
	t.Errorf("of the connections with the directory, in ms: %d; none has %v", timeouts, uplinkPatience)
}
