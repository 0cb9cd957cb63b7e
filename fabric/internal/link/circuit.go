package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/zfab/zfab/fabric/internal/circuit"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Circuit is a connection that runs over a link: this process is one of its ends,
// and another link is to run over it. It is a Conn.
//
//  1. WriteBuffers cuts what it is given into packets, puts those into the
//     circuit's queue on the link below, and waits until its writer has written
//     them: the bytes are not copied. WriteNow copies, and does not wait.
//  2. The reader of the link below leaves what arrives in the Circuit's queue, for
//     which room was lent, and ReadPacket takes it from there.
type Circuit struct {
	link   *Link        // below
	end    *circuit.End // under link's mu; set before anything arrives
	remote string
	idle   func() // the reader's

	// the reader's
	held  *transport.Buffer // of the packet read last
	taken uint64            // bytes of credit that were read and not lent again

	// the writer's
	parcels []circuit.Parcel
	parts   [][]byte

	mu       sync.Mutex
	changed  sync.Cond
	arrived  []packet
	first    int // of arrived
	accepted bool
	pending  int   // packets of the write under way that are not written
	cause    error // the circuit has ended
	closed   bool
	reading  deadline
	writing  deadline
}

type packet struct {
	body []byte
	from *transport.Buffer // with a reference of the circuit's
}

func newCircuit(l *Link, remote string) *Circuit {
	c := &Circuit{link: l, remote: remote}
	c.changed.L = &c.mu
	return c
}

// Dial asks for a circuit from the node called from to the one called to, by way
// of the node via. It can be used once Accepted has returned.
func (l *Link) Dial(from, to, via string) (*Circuit, error) {
	c := newCircuit(l, fmt.Sprintf("via:%s/%s", via, to))
	l.mu.Lock()
	if l.conn == nil || l.closed {
		l.mu.Unlock()
		return nil, errNoConnection
	}
	var err error
	if c.end, err = l.core.circuits.Call(from, to, via, c); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	l.promptly(true)
	return c, nil
}

// Accepted waits until who was called has accepted. An error, a *CircuitError if
// it was refused, ends the circuit.
func (c *Circuit) Accepted(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()
	c.mu.Lock()
	for !c.accepted && c.cause == nil && !c.closed && ctx.Err() == nil {
		c.changed.Wait()
	}
	var err error
	if !c.accepted {
		err = c.failure()
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	c.mu.Unlock()
	if err != nil {
		c.Close()
	}
	return err
}

func (c *Circuit) wake() {
	c.mu.Lock()
	c.changed.Broadcast()
	c.mu.Unlock()
}

// failure is why the circuit is of no use. Under mu.
func (c *Circuit) failure() error {
	if c.cause != nil {
		return c.cause
	}
	if c.closed {
		return ErrClosed
	}
	return nil
}

// accept, packet and hangUp are what the reader below has heard.
func (c *Circuit) accept() {
	c.mu.Lock()
	c.accepted = true
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *Circuit) packet(body []byte, from Retainer) {
	b := from.(*transport.Buffer) // what connections read into
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	b.Retain()
	if 2*c.first >= len(c.arrived) {
		n := copy(c.arrived, c.arrived[c.first:])
		clear(c.arrived[n:])
		c.arrived, c.first = c.arrived[:n], 0
	}
	c.arrived = append(c.arrived, packet{body, b})
	c.changed.Broadcast()
}

func (c *Circuit) hangUp(code uint8, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = &CircuitError{To: c.end.To, Code: code, Text: text}
	}
	c.changed.Broadcast()
}

// ReadPacket waits for a packet, which is valid until the next call.
func (c *Circuit) ReadPacket() ([]byte, *transport.Buffer, error) {
	if c.held != nil {
		c.held.Release()
		c.held = nil
	}
	c.mu.Lock()
	for idle := false; c.first == len(c.arrived); {
		switch {
		case c.failure() != nil:
			err := c.failure()
			c.mu.Unlock()
			return nil, nil, err
		case c.reading.passed:
			c.mu.Unlock()
			return nil, nil, errDeadline
		case !idle:
			idle = true
			c.mu.Unlock()
			c.lend(true)
			if c.idle != nil {
				c.idle()
			}
			c.mu.Lock()
		default:
			c.changed.Wait()
		}
	}
	p := c.arrived[c.first]
	c.arrived[c.first] = packet{}
	c.first++
	c.mu.Unlock()
	c.held = p.from
	c.taken += uint64(len(p.body)) + wire.PacketCost
	c.lend(false)
	return p.body, p.from, nil
}

// lend lends again what was read: all of it, or only if it is a good part of what
// may be on its way.
func (c *Circuit) lend(all bool) {
	if n := c.taken; n >= circuit.Window/4 || all && n > 0 {
		c.taken = 0
		c.link.mu.Lock()
		c.link.core.circuits.Passed(c.end, n)
		c.link.promptly(true)
	}
}

// WriteBuffers writes packets that are framed as on a socket. It waits until they
// are written to the connection below, for credit too. An error ends the circuit.
func (c *Circuit) WriteBuffers(bufs [][]byte) error {
	if err := c.cut(bufs); err != nil {
		return err
	}
	c.mu.Lock()
	if err := c.failure(); err != nil {
		c.mu.Unlock()
		return err
	}
	c.pending = len(c.parcels)
	c.mu.Unlock()
	unsent := c.send()
	err := c.written(unsent)
	clear(c.parcels)
	clear(c.parts)
	if err != nil {
		c.Close()
	}
	return err
}

// send gives the parcels to the link below, and returns how many it does not take:
// then the circuit has ended.
func (c *Circuit) send() (unsent int) {
	l := c.link
	l.mu.Lock()
	for i := range c.parcels {
		if !l.core.circuits.Send(c.end, c.parcels[i]) {
			unsent = len(c.parcels) - i
			break
		}
	}
	l.promptly(false)
	return unsent
}

// written waits until the parcels that were sent are written, or taken back. If
// some were not sent it waits for the reason, which the reader below is about to
// tell.
func (c *Circuit) written(unsent int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending -= unsent
	for back := false; c.pending > 0 || unsent > 0 && c.failure() == nil; {
		if c.pending > 0 && (c.failure() != nil || c.writing.passed) && !back {
			// What is not being written just now need not be waited for.
			back = true
			c.mu.Unlock()
			c.link.mu.Lock()
			c.link.core.circuits.TakeBack(c.end)
			c.link.mu.Unlock()
			c.mu.Lock()
			continue
		}
		c.changed.Wait()
	}
	if err := c.failure(); err != nil {
		return err
	}
	if c.writing.passed {
		return errDeadline
	}
	return nil
}

// Release says that one of the packets of the write under way is written, or
// dropped. Under the link's mu.
func (c *Circuit) Release() {
	c.mu.Lock()
	if c.pending--; c.pending == 0 {
		c.changed.Broadcast()
	}
	c.mu.Unlock()
}

// cut makes parcels of framed packets, without copying them.
func (c *Circuit) cut(bufs [][]byte) error {
	c.parcels, c.parts = c.parcels[:0], c.parts[:0]
	for i, off := 0, 0; ; {
		for i < len(bufs) && off == len(bufs[i]) {
			i, off = i+1, 0
		}
		if i == len(bufs) {
			return nil
		}
		n, header, err := transport.FrameHeader(bufs[i][off:])
		if err != nil {
			return err
		}
		if n == 0 || n > wire.MaxCarried {
			return fmt.Errorf("a packet of %d bytes does not fit a circuit", n)
		}
		off += header
		from := len(c.parts)
		for left := n; left > 0; {
			if off == len(bufs[i]) {
				if i, off = i+1, 0; i == len(bufs) {
					return fmt.Errorf("a packet lacks %d bytes", left)
				}
				continue
			}
			m := min(left, len(bufs[i])-off)
			c.parts = append(c.parts, bufs[i][off:off+m])
			off, left = off+m, left-m
		}
		c.parcels = append(c.parcels, circuit.Parcel{Parts: c.parts[from:len(c.parts):len(c.parts)], Size: n, From: c, Local: true})
	}
}

// WriteNow takes p, framed packets, if they can be sent at once: all of it or
// nothing.
func (c *Circuit) WriteNow(p []byte) (int, error) {
	c.mu.Lock()
	err := c.failure()
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, header, err := transport.FrameHeader(p)
	if err != nil || header+n != len(p) {
		return 0, nil // more than one: the writer's
	}
	l := c.link
	l.mu.Lock()
	if !c.end.Ready(n) {
		l.mu.Unlock()
		return 0, nil
	}
	k := newChunk(packed, classOf(n))
	k.buf = append(k.buf, p[header:]...)
	l.core.circuits.Send(c.end, circuit.Parcel{Body: k.buf, Size: n, From: k})
	l.promptly(true)
	return len(p), nil
}

// WriteMessage writes one packet.
func (c *Circuit) WriteMessage(frames ...[]byte) error {
	var p []byte
	for i, frame := range frames {
		p = append(transport.AppendFrameHeader(p, len(frame), i < len(frames)-1), frame...)
	}
	return c.WriteBuffers([][]byte{p})
}

// Close ends the circuit: reads and writes that wait, too.
func (c *Circuit) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.reading.stop()
	c.writing.stop()
	for ; c.first < len(c.arrived); c.first++ {
		c.arrived[c.first].from.Release()
		c.arrived[c.first] = packet{}
	}
	c.changed.Broadcast()
	c.mu.Unlock()
	c.link.mu.Lock()
	c.link.core.circuits.Close(c.end, wire.CodeDone, "")
	c.link.promptly(true)
	return nil
}

// CloseWrite is Close: a circuit has no halves.
func (c *Circuit) CloseWrite() error { return c.Close() }

// RemoteAddr names the other end.
func (c *Circuit) RemoteAddr() string { return c.remote }

// AtOnce is false: how fast the links are that a circuit runs over is not known here.
func (c *Circuit) AtOnce() bool { return false }

// SetIdle sets what the reader does before it waits.
func (c *Circuit) SetIdle(idle func()) { c.idle = idle }

// SetPlacer does nothing: packets arrive whole.
func (c *Circuit) SetPlacer(transport.Placer) {}

// SetControlWake does nothing, and ControlPending says no: what runs over a
// circuit has no commands.
func (c *Circuit) SetControlWake(func()) {}
func (c *Circuit) ControlPending() bool  { return false }

// SetReadDeadline ends a read that waits at t, SetWriteDeadline a write; zero:
// never.
func (c *Circuit) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.reading, t) }
func (c *Circuit) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writing, t) }

func (c *Circuit) setDeadline(d *deadline, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.stop()
	d.passed = false
	if t.IsZero() || c.closed {
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(t), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.timer == timer { // not replaced while it waited for the lock
			d.passed = true
			c.changed.Broadcast()
		}
	})
	d.timer = timer
	return nil
}

// deadline is one of a Circuit's, under its mu.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

var errDeadline = fmt.Errorf("a deadline has passed: %w", context.DeadlineExceeded)
