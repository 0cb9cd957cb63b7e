package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAMemConnectionIsAnOrderedStream(t *testing.T) {
	near, far := memPipe("x")
	want := payload(1, 5*memRing+13)
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%70_001)
			near.Write(rest[:n])
			rest = rest[n:]
		}
		near.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestDeadlinesOfAMemConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memPipe("x")
		defer near.Close()
		defer far.Close()
		start := time.Now()
		near.SetDeadline(start.Add(time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Fatalf("read: %v after %v", err, time.Since(start))
		}
		synctest.Wait() // the other direction's timer is another one
		if _, err := near.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write after the deadline: %v", err)
		}
		near.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := near.Write(make([]byte, memRing+1))
		if n != memRing || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Fatalf("write: %d, %v after %v", n, err, time.Since(start))
		}
		// A deadline that is moved or taken back does not pass.
		near.SetReadDeadline(time.Now().Add(time.Second))
		near.SetReadDeadline(time.Time{})
		read := make(chan error, 1)
		go func() {
			_, err := near.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(time.Minute) // the bubble's clock
		select {
		case err := <-read:
			t.Fatalf("ended with %v", err)
		default:
		}
		near.SetReadDeadline(time.Now().Add(-time.Second))
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// A timer that has fired and waits for the lock, while its deadline is taken back, has lost.
func TestADeadlineThatIsTakenBackInTheLastMoment(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			near, far := memPipe("x")
			defer near.Close()
			defer far.Close()
			near.SetReadDeadline(time.Now().Add(time.Second))
			near.in.mu.Lock()
			time.Sleep(time.Second) // the bubble's clock
			runtime.Gosched()
			near.in.forReads.set(near.in, time.Time{})
			near.in.mu.Unlock()
			synctest.Wait()
			if near.in.forReads.passed {
				t.Fatal("it passed")
			}
		})
	}
}

func TestClosingAMemConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := memPipe("x")
		near.Write([]byte("on its way"))
		ended := make(chan error, 1)
		go func() {
			_, err := near.Read(make([]byte, 1))
			ended <- err
		}()
		synctest.Wait()
		near.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("own read: %v", err)
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("own write: %v", err)
		}
		if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("the peer's write: %v", err)
		}
		if got, err := io.ReadAll(far); string(got) != "on its way" || err != nil {
			t.Errorf("the peer's read: %q, %v", got, err)
		}
	})
}

// An idle connection lends no ring, and what it gave back is not in use.
func TestAnIdleMemConnectionHoldsNoRing(t *testing.T) {
	near, far := memPipe("x")
	near.Write([]byte("abc"))
	if _, err := io.ReadFull(far, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if near.out.ring != nil {
		t.Fatal("drained and holding a ring")
	}
	near.Write([]byte("abc"))
	far.Close()
	if near.out.ring != nil {
		t.Fatal("closed and holding a ring")
	}
}

func TestDialWaitsForAMemListenersBacklog(t *testing.T) {
	nl, err := listenMem("backlog")
	if err != nil {
		t.Fatal(err)
	}
	for range memBacklog {
		if _, err := dialMem(context.Background(), "backlog"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := dialMem(ctx, "backlog"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := dialMem(context.Background(), "backlog")
		waiting <- err
	}()
	if _, err := nl.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	late, err := nl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nl.Close()
	if _, err := late.Write([]byte("x")); err != nil { // accepted ones live on
		t.Fatal(err)
	}
	if _, err := dialMem(context.Background(), "backlog"); !errors.Is(err, ErrNotListening) {
		t.Fatal(err)
	}
}

// A connection that slips into the backlog while the listener closes is closed, too.
func TestDialingAMemListenerThatCloses(t *testing.T) {
	for range 2000 {
		nl, err := listenMem("closing")
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() {
			nl.Close()
			close(closed)
		}()
		nc, err := dialMem(context.Background(), "closing")
		<-closed
		switch {
		case err == nil:
			nc.SetReadDeadline(time.Now().Add(patience))
			if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("dialled and left alone: %v", err)
			}
		case !errors.Is(err, ErrNotListening):
			t.Fatal(err)
		}
	}
}

// A whole connection runs on the clock of a test's bubble.
func TestMemConnectionsWorkInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Listen("mem://bubble", Config{SocketType: Dealer, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		silent, err := dialMem(t.Context(), "bubble")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		io.Copy(io.Discard, silent)
		if took := time.Since(start); took != defaultHandshakeTimeout {
			t.Fatalf("a silent connection was closed after %v", took)
		}
	})
}
