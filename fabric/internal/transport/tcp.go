package transport

import (
	"net"
	"time"
)

const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3

	// userTimeout ends a connection whose peer acknowledged nothing, or took nothing, for so long (where the system can
	// do that). It is the last resort for a write that waits: a fabric's heartbeats are quicker, and a healthy peer
	// always reads.
	userTimeout = 30 * time.Second
)

// setTCPOptions prepares a fresh connection. Batching is ours, so Nagle's algorithm is off. Options are hints: where one
// cannot be set, the connection works without it.
func setTCPOptions(nc net.Conn) {
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
