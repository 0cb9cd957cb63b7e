package transport

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
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
