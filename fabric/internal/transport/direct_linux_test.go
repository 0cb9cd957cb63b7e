//go:build linux && !race

package transport

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The system takes what it has room for, and may end in the middle of any piece.
func TestPiecesThatAreWrittenInPartsArriveWhole(t *testing.T) {
	for _, scheme := range []string{"tcp", "ipc"} {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addresses(t)[scheme], Config{})
			var bufs [][]byte
			var want []byte
			for i, size := range []int{0, 1 << 20, 1, 300_001, 0, 0, 7, 4 << 20, 65_536, 3 << 20, 9} {
				p := payload(i, size)
				bufs, want = append(bufs, p), append(want, p...)
			}
			sent := make(chan error, 1)
			go func() { sent <- c.WriteBuffers(bufs) }()
			for len(want) > 0 { // in small reads, so that the writer is always ahead
				n := min(len(want), 77_777)
				readExactly(t, nc, want[:n])
				want = want[n:]
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A write is at once if the socket has room for all of it.
func TestWritesThatWait(t *testing.T) {
	for _, scheme := range []string{"tcp", "ipc"} {
		t.Run(scheme, func(t *testing.T) {
			c, nc := rawPeer(t, addresses(t)[scheme], Config{})
			write := func(size int) (atOnce bool) {
				t.Helper()
				p := payload(1, size)
				sent := make(chan error, 1)
				go func() { sent <- c.WriteBuffers([][]byte{p[:size/2], p[size/2:]}) }()
				if size > 1<<20 { // more than any socket takes: read nothing until it has stopped
					for last := -1; ; {
						n := unread(t, nc)
						if n > 0 && n == last {
							break
						}
						last = n
						time.Sleep(10 * time.Millisecond)
					}
				}
				readExactly(t, nc, p)
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				return c.AtOnce()
			}
			for _, size := range []int{100, 64 << 20, 100} {
				if atOnce := write(size); atOnce != (size == 100) {
					t.Errorf("%d bytes: AtOnce says %v", size, atOnce)
				}
			}
		})
	}
}

// unread is how many bytes have arrived that were not read.
func unread(t *testing.T, nc net.Conn) (n int) {
	t.Helper()
	err := rawConn(nc).Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lateWriter is set in the process that writes to the address it holds: a byte on each of two connections.
const lateWriter = "ZFAB_TEST_LATE_WRITER"

// A goroutine that computes on the only processor is interrupted for those that have something to read, although nothing
// but direct calls has woken the process.
func TestAComputationIsInterruptedAfterADirectRead(t *testing.T) {
	if addr := os.Getenv(lateWriter); addr != "" {
		writeLate(t, addr)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), lateWriter+"="+l.Addr().String())
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var sources [2]source
	for i := range sources {
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		sources[i] = newSource(nc)
	}
	var arrived atomic.Bool
	second := make(chan error, 1)
	go func() {
		_, err := sources[1].readTo(make([]byte, 1), nil)
		arrived.Store(true)
		second <- err
	}()
	if _, err := sources[0].readTo(make([]byte, 1), nil); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); !arrived.Load(); {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("what has arrived was not read for 20 s, as another goroutine computes")
		}
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

// writeLate writes when the reader's process has long been idle, and again when it computes.
func writeLate(t *testing.T, addr string) {
	for _, pause := range []time.Duration{300 * time.Millisecond, 500 * time.Millisecond} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		time.AfterFunc(pause, func() { nc.Write([]byte{1}) })
	}
	time.Sleep(time.Minute) // until the reader ends this process
}
