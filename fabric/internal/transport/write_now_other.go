//go:build !unix

package transport

import "net"

func newNowWriter(net.Conn) nowWriter       { return nil }
func newVectorWriter(net.Conn) vectorWriter { return nil }
