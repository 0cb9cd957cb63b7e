//go:build !unix

package transport

import "net"

func newSource(nc net.Conn) source {
	if c, ok := nc.(*memConn); ok {
		return memSource{c.in}
	}
	return &probeSource{nc: nc}
}
