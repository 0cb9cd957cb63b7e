//go:build libzmq

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
	"github.com/vmihailenco/msgpack/v5"
)

// Kinds of records and flags of backlog, from the page.
const (
	hello, open, data, fragment, end, state = 0, 1, 2, 3, 4, 5
	backlog, cancel, reset, ping, pong, bye = 6, 7, 8, 9, 10, 11

	version = 2

	blocked = 1
	ask     = 8
)

// record is a record as the library decodes it: the kind, then the elements.
type record []any

func (r record) kind() int         { return number(r[0]) }
func (r record) number(i int) int  { return number(r[i]) }
func (r record) text(i int) string { return r[i].(string) }

func number(v any) int {
	switch v := v.(type) {
	case int8:
		return int(v)
	case uint8:
		return int(v)
	case int16:
		return int(v)
	case uint16:
		return int(v)
	case int32:
		return int(v)
	case uint32:
		return int(v)
	case int64:
		return int(v)
	case uint64:
		return int(v)
	}
	panic(fmt.Sprintf("%T is no number", v))
}

func encode(records ...record) ([]byte, error) {
	var packet bytes.Buffer
	for _, r := range records {
		if err := msgpack.NewEncoder(&packet).Encode([]any(r)); err != nil {
			return nil, err
		}
	}
	return packet.Bytes(), nil
}

func decode(packet []byte) (list []record, err error) {
	for d := msgpack.NewDecoder(bytes.NewReader(packet)); ; {
		v, err := d.DecodeInterface()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		r, ok := v.([]any)
		if err != nil || !ok || len(r) == 0 {
			return nil, fmt.Errorf("not a record: %v, %v", v, err)
		}
		list = append(list, r)
	}
}

// peer is the other end of a link: a ROUTER's, which is addressed by its
// identity, or a DEALER's, which has none.
type peer struct {
	socket   *zmq4.Socket
	identity string // "" at a DEALER
	queue    []record
}

// newPeer makes a socket that is called own.
func newPeer(kind zmq4.Type, own, identity string) (*peer, error) {
	s, err := zmq4.NewSocket(kind)
	if err != nil {
		return nil, err
	}
	err = errors.Join(s.SetIdentity(own), s.SetSndtimeo(patience*time.Millisecond), s.SetLinger(time.Second))
	if kind == zmq4.ROUTER {
		// What cannot be sent is to be an error, and not dropped.
		err = errors.Join(err, s.SetRouterMandatory(1))
	}
	return &peer{socket: s, identity: identity}, err
}

// say sends a packet of these records.
func (p *peer) say(records ...record) error {
	packet, err := encode(records...)
	if err != nil {
		return err
	}
	if p.identity == "" {
		_, err = p.socket.SendBytes(packet, 0)
		return err
	}
	_, err = p.socket.SendMessage(p.identity, packet)
	return err
}

// errNothing says that nothing was heard in time.
var errNothing = errors.New("nothing was heard")

// hear returns the next record.
func (p *peer) hear(wait time.Duration) (record, error) {
	for len(p.queue) == 0 {
		if err := p.socket.SetRcvtimeo(wait); err != nil {
			return nil, err
		}
		frames, err := p.socket.RecvMessageBytes(0)
		if errors.Is(err, zmq4.Errno(syscall.EAGAIN)) {
			return nil, errNothing
		}
		if err != nil {
			return nil, err
		}
		if p.identity != "" {
			if len(frames) == 0 || string(frames[0]) != p.identity {
				return nil, fmt.Errorf("a message of %q", frames)
			}
			frames = frames[1:]
		}
		if len(frames) != 1 {
			return nil, fmt.Errorf("a packet of %d frames", len(frames))
		}
		if p.queue, err = decode(frames[0]); err != nil {
			return nil, err
		}
	}
	r := p.queue[0]
	p.queue = p.queue[1:]
	return r, nil
}
