package transport

import "net"

// source reads from a connection into memory that it borrows only when there may be something to read.
type source interface {
	// read waits for bytes and returns how many it put into the memory that in.space lent last. Before it waits, it
	// calls in.idle, after which it must ask for memory again.
	read(in *inbox) (int, error)
	// readTo waits for bytes and puts them into p, and what comes behind them into more, if it can do both at once.
	readTo(p, more []byte) (int, error)
}

// probeSource is for any net.Conn. It cannot see whether there is something to read, so it waits with a small buffer of its
// own and has that copied; but while reads bring much, it waits with the memory that the next one will need.
type probeSource struct {
	nc    net.Conn
	probe [smallBuffer]byte
	rest  []byte // of the probe: read, and not taken yet
}

func (s *probeSource) read(in *inbox) (int, error) {
	if len(s.rest) == 0 {
		if in.r < in.w || in.eager {
			in.waits()
			return s.nc.Read(in.space())
		}
		in.idle()
		n, err := s.nc.Read(s.probe[:])
		if n == 0 {
			return 0, err
		}
		s.rest = s.probe[:n]
	}
	n := copy(in.space(), s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *probeSource) readTo(p, _ []byte) (int, error) {
	if len(s.rest) == 0 {
		return s.nc.Read(p)
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
