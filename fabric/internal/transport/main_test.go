package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

var memNames atomic.Int64

// addresses are one fresh address of each kind.
func addresses(t testing.TB) map[string]string {
	return map[string]string{
		"tcp": "tcp://127.0.0.1:0",
		"ipc": "ipc://" + filepath.Join(t.TempDir(), "s"),
		"mem": memAddress(),
	}
}

func memAddress() string { return fmt.Sprintf("mem://test-%d", memNames.Add(1)) }

func listen(t testing.TB, addr string, cfg Config) *Listener {
	t.Helper()
	if cfg.SocketType == "" {
		cfg.SocketType = Dealer
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	l, err := Listen(addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns a DEALER that listens and a ROUTER that dialled it.
func connect(t testing.TB, addr string, dealer, router Config) (*Conn, *Conn) {
	t.Helper()
	ctx := testContext(t)
	router.SocketType = Router
	l := listen(t, addr, dealer)
	r, err := Dial(ctx, l.Addr(), router)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); d.Close() })
	for _, c := range []*Conn{r, d} {
		c.SetReadDeadline(time.Now().Add(patience))
		c.SetWriteDeadline(time.Now().Add(patience))
	}
	return d, r
}

func protocolError(t testing.TB, err error) *ProtocolError {
	t.Helper()
	var p *ProtocolError
	if !errors.As(err, &p) {
		t.Fatalf("want a *ProtocolError, have %v", err)
	}
	return p
}
