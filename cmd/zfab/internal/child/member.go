package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A Hello is the first line of a child that dials.
type Hello struct {
	Version int `json:"version"` // of what follows: helloVersion
	Place   int `json:"place"`   // which of the parent's places it takes, from 1; 0: any
}

const helloVersion = 1

// helloPatience is how long who has dialled may take to say hello, and maxHello
// how many bytes that may be.
const (
	helloPatience = 10 * time.Second
	maxHello      = 256
)

// maxGreeting bounds those that have dialled and not said hello yet; others wait
// to be accepted.
const maxGreeting = 64

// A Muster is where children dial that others have started. It owns the listener,
// an accepting goroutine, and one for each that has not said hello yet.
type Muster struct {
	ln     net.Listener
	logger *slog.Logger
	came   chan arrival
	slots  chan struct{} // one word for each that has not said hello
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// An arrival is a child that has said hello.
type arrival struct {
	hello Hello
	conn  net.Conn
	out   *bufio.Reader
}

// NewMuster listens at a TCP address, host:port.
func NewMuster(addr string, logger *slog.Logger) (*Muster, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	m := &Muster{ln: ln, logger: logger, came: make(chan arrival), slots: make(chan struct{}, maxGreeting)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(m.accept)
	return m, nil
}

// Addr is where it listens.
func (m *Muster) Addr() *net.TCPAddr { return m.ln.Addr().(*net.TCPAddr) }

// Close lets nobody dial any more, and sends those away that have no place.
func (m *Muster) Close() {
	m.cancel()
	m.ln.Close()
	m.wg.Wait()
}

func (m *Muster) accept() {
	for {
		conn, err := m.ln.Accept()
		if err != nil {
			return
		}
		select {
		case m.slots <- struct{}{}:
		case <-m.ctx.Done():
			conn.Close()
			return
		}
		m.wg.Go(func() {
			m.greet(conn)
			<-m.slots
		})
	}
}

// greet hears who has dialled, and hands it over.
func (m *Muster) greet(conn net.Conn) {
	stop := context.AfterFunc(m.ctx, func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(helloPatience))
	out := bufio.NewReaderSize(conn, maxHello)
	line, err := out.ReadSlice('\n')
	var hello Hello
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	if err == nil && hello.Version != helloVersion {
		err = fmt.Errorf("it speaks version %d, this program %d", hello.Version, helloVersion)
	}
	conn.SetReadDeadline(time.Time{})
	if err == nil && stop() {
		select {
		case m.came <- arrival{hello, conn, out}:
			return
		case <-m.ctx.Done():
		}
	}
	conn.Close()
	if m.ctx.Err() == nil {
		m.logger.Error("who has dialled is no member", "remote", conn.RemoteAddr().String(), "reason", err)
	}
}

// Gather waits until all places, which names names, are taken, or ctx ends: then
// its error says how many are. One that asks for a place that is taken, or that
// there is not, is sent away.
func (m *Muster) Gather(ctx context.Context, names []string) ([]*Process, error) {
	all := make([]*Process, len(names))
	for taken := 0; taken < len(all); {
		select {
		case a := <-m.came:
			if at := a.place(all); at >= 0 {
				all[at] = dialled(names[at], a)
				taken++
				continue
			}
			a.conn.Close()
			m.logger.Error("no place for a member", "remote", a.conn.RemoteAddr().String(), "asked", a.hello.Place, "places", len(all))
		case <-ctx.Done():
			for _, p := range all {
				if p != nil {
					p.wait() // nobody hears it yet
				}
			}
			return nil, fmt.Errorf("%d of %d members have come to %s: %w", taken, len(all), m.Addr(), ctx.Err())
		}
	}
	return all, nil
}

// place is the place that a gets, -1 for none.
func (a arrival) place(all []*Process) int {
	if want := a.hello.Place; want != 0 {
		if want < 1 || want > len(all) || all[want-1] != nil {
			return -1
		}
		return want - 1
	}
	for i, p := range all {
		if p == nil {
			return i
		}
	}
	return -1
}

func dialled(name string, a arrival) *Process {
	p := &Process{name: name, in: input{a.conn}, out: json.NewDecoder(a.out), ended: make(chan struct{})}
	p.over = sync.OnceFunc(func() { close(p.ended) })
	p.wait = sync.OnceValue(func() error { a.conn.Close(); return nil })
	return p
}

// input is the way of a connection to the child. Its end is not that of the other
// way: the child takes leave first.
type input struct{ net.Conn }

func (i input) Close() error { return i.Conn.(*net.TCPConn).CloseWrite() }

// Dial is the child's end of a muster: it dials until somebody is there, or ctx
// ends, and says hello. What follows is as over the standard input and output.
func Dial(ctx context.Context, addr string, place int) (net.Conn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			hello, _ := json.Marshal(Hello{helloVersion, place})
			if _, err = conn.Write(append(hello, '\n')); err == nil {
				return conn, nil
			}
			conn.Close()
		}
		select {
		case <-time.After(dialPause/2 + rand.N(dialPause)):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// dialPause is about how long a child waits between two dials.
const dialPause = 200 * time.Millisecond
