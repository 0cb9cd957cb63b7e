package link

import (
	"time"

	"github.com/zfab/zfab/fabric/internal/transport"
)

// Conn is what a link runs over: a *transport.Conn, whose methods these are, or
// a *Circuit. One goroutine may read, one at a time may write, any may close.
type Conn interface {
	ReadPacket() (p []byte, b *transport.Buffer, err error)
	WriteBuffers(bufs [][]byte) error
	AtOnce() bool
	WriteNow(p []byte) (n int, err error)
	WriteMessage(frames ...[]byte) error
	ControlPending() bool

	SetIdle(idle func())
	SetPlacer(place transport.Placer)
	SetControlWake(wake func())
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	RemoteAddr() string
	CloseWrite() error
	Close() error
}
