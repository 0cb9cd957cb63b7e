package transport

import (
	"net"
	"time"
)

const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
)

// setTCPOptions prepares a fresh connection. Batching is ours, so Nagle's algorithm is off. Options are hints: where one
// cannot be set, the connection works without it.
func setTCPOptions(nc net.Conn, userTimeout time.Duration) {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	tc.SetNoDelay(true)
	tc.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	})
	setUserTimeout(tc, userTimeout)
}
