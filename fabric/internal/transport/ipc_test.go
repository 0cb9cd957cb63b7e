package transport

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// stale leaves a socket file behind, as a process that was killed does.
func stale(t testing.TB, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func TestAStaleSocketFileIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	l := listen(t, "ipc://"+path, Config{})
	dialAndAccept(t, l)
	l.Close()
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Fatalf("left behind: %q", left)
	}
}

func TestOnlyOneReplacesAStaleSocketFile(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		stale(t, path)
		const contenders = 8
		type outcome struct {
			l   *Listener
			err error
		}
		outcomes := make(chan outcome, contenders)
		for range contenders {
			go func() {
				l, err := Listen("ipc://"+path, Config{SocketType: Dealer, Logger: quiet})
				outcomes <- outcome{l, err}
			}()
		}
		var winner *Listener
		for range contenders {
			o := <-outcomes
			switch {
			case o.err == nil && winner == nil:
				winner = o.l
			case o.err == nil:
				t.Error("two listeners")
				o.l.Close()
			case !errors.Is(o.err, ErrAddressInUse):
				t.Error(o.err)
			}
		}
		if winner == nil {
			t.Fatal("no listener")
		}
		dialAndAccept(t, winner)
		winner.Close()
	}
}

func TestAFileThatIsNoSocketIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("ipc://"+path, Config{SocketType: Dealer}); !errors.Is(err, ErrAddressInUse) {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); string(b) != "data" {
		t.Fatalf("%q, %v", b, err)
	}
}

func TestAPathTooLongForASocketIsSaidPlainly(t *testing.T) {
	addr := "ipc://" + filepath.Join(t.TempDir(), strings.Repeat("l", 120))
	if _, err := Listen(addr, Config{SocketType: Dealer}); !errors.Is(err, ErrInvalidAddress) {
		t.Errorf("listen: %v", err)
	}
	if _, err := Dial(testContext(t), addr, Config{SocketType: Router}); !errors.Is(err, ErrInvalidAddress) {
		t.Errorf("dial: %v", err)
	}
}

func TestASocketFileHasThePermissionsThatWereAskedFor(t *testing.T) {
	for _, mode := range []os.FileMode{0o600, 0o660} {
		path := filepath.Join(t.TempDir(), "s")
		l := listen(t, "ipc://"+path, Config{Mode: mode})
		if found, err := os.Stat(path); err != nil || found.Mode().Perm() != mode {
			t.Errorf("%v, want %v: %v", found.Mode(), mode, err)
		}
		dialAndAccept(t, l)
		l.Close()
	}
}

// A process whose user may not connect gets no handshake, and others are not
// concerned.
func TestWhoConnectsIsAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var refuse atomic.Bool
	l := listen(t, "ipc://"+path, Config{AdmitUser: func(uid uint32, known bool) error {
		if known && uid != uint32(os.Getuid()) {
			t.Errorf("user %d, this is %d", uid, os.Getuid())
		}
		if known != (runtime.GOOS == "linux") {
			t.Errorf("the user is known: %v", known)
		}
		if refuse.Load() {
			return errors.New("not you")
		}
		return nil
	}})
	dialAndAccept(t, l)
	refuse.Store(true)
	if c, err := Dial(t.Context(), "ipc://"+path, Config{SocketType: Router, Logger: quiet}); err == nil {
		c.Close()
		t.Error("connected")
	}
	refuse.Store(false)
	dialAndAccept(t, l)
}
