package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	schemeTCP = "tcp"
	schemeIPC = "ipc"
	schemeMem = "mem"
)

// CheckAddress is an error that matches ErrInvalidAddress or ErrUnknownScheme unless Listen and Dial can make something of
// addr. It asks nobody: whether the host is known, and the path there, is seen later.
func CheckAddress(addr string) error {
	_, _, err := splitAddress(addr)
	return err
}

// Unspecified reports whether addr is a TCP address without a host, or with one that stands for all of the machine's own
// ("*", 0.0.0.0, [::]): one can listen there, and nobody dial it from elsewhere.
func Unspecified(addr string) bool {
	scheme, rest, err := splitAddress(addr)
	if err != nil || scheme != schemeTCP {
		return false
	}
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

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
		if _, err := net.LookupPort("tcp", port); err != nil {
			return "", "", fmt.Errorf("%w: %q is no port", ErrInvalidAddress, port)
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
