package transport

import (
	"fmt"
	"net"
	"strings"
)

const (
	schemeTCP = "tcp"
	schemeIPC = "ipc"
	schemeMem = "mem"
)

// splitAddress takes an address apart and checks what the scheme asks of the rest. ZeroMQ's tcp://*:port is understood.
func splitAddress(addr string) (scheme, rest string, err error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok || rest == "" {
		return "", "", fmt.Errorf("%w: want scheme://address", ErrInvalidAddress)
	}
	switch scheme {
	case schemeTCP:
		host, port, err := net.SplitHostPort(rest)
		if err != nil {
			return "", "", fmt.Errorf("%w: %w", ErrInvalidAddress, err)
		}
		if host == "*" {
			rest = net.JoinHostPort("", port)
		}
	case schemeIPC, schemeMem:
	default:
		return "", "", fmt.Errorf("%w %q: have tcp, ipc, mem", ErrUnknownScheme, scheme)
	}
	return scheme, rest, nil
}
