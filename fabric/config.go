package fabric

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/transport"
)

// Config says how to open a Node. The zero value works: a node on loopback with
// a directory of its own.
type Config struct {
	// Name is the node's, unique in the directory: 1 to 255 bytes of
	// [A-Za-z0-9._-]. Default: "node-" and eight random hexadecimal digits.
	Name string
	// Listen is the address that other nodes dial: "tcp://host:port" (port 0
	// picks a free one), "ipc:///path" or "mem://name". Default: tcp://127.0.0.1:0,
	// which only this machine reaches. A host that stands for all of the machine's
	// addresses ("*", 0.0.0.0, [::]) is refused: nobody could dial it from elsewhere.
	Listen string
	// Workers says whether other processes of this host may use the node, with
	// Attach. Default: none may.
	Workers Workers
	// Directory is where nodes find each other: a *directory.Registry that the
	// nodes of one process share, or a *directory.Client. Whoever made it closes
	// it. Default: a registry of the node's own, which Node.Directory returns.
	Directory directory.Service
	// MemoryBudget bounds the room, in bytes, that the node's consumers lend to
	// all their streams together; beyond it each stream gets room for one
	// message only. Default: 256 MiB.
	MemoryBudget int64
	// MaxMessage is the largest message, in bytes, that the node sends or
	// accepts. Default: 64 MiB, at most 1 GiB.
	MaxMessage int
	// HeartbeatInterval is how often links are looked after: a peer that was
	// silent for two intervals is asked for a sign of life. Default: 1 s.
	HeartbeatInterval time.Duration
	// HeartbeatTimeout is how long the link is kept of a peer that is silent, or,
	// on Linux (TCP_USER_TIMEOUT), whose system acknowledges nothing. Default: 8 s;
	// at least three intervals.
	HeartbeatTimeout time.Duration
	// ResumeWindow is how long the streams of a broken link wait for another
	// connection, with all that they hold, before their ends get a *PeerLostError:
	// each node goes by its own. So long waits also what was accepted for a
	// consumer that has left the directory and is not connected. A node that is
	// known to have ended is not waited for. Default: 60 s.
	ResumeWindow time.Duration
	// Logger takes what an operator should know: links up and down, peers
	// refused. Default: slog.Default().
	Logger *slog.Logger
}

// Workers is how a node takes workers.
type Workers struct {
	// Listen is where they attach: "ipc:///path/of/a/socket", or "mem://name" for
	// those inside the process. A socket file that a dead node has left is replaced.
	// Default: nowhere.
	Listen string
	// Mode is the permissions of the socket file; who may not write it cannot
	// attach. Default: 0600.
	Mode fs.FileMode
	// Users are the numbers of users whose processes may attach, beside those of
	// root and of the user who runs the node; the permissions must let them as well.
	// Where the system does not tell who connects (it does on Linux, by
	// SO_PEERCRED), the permissions alone decide. Default: nobody else.
	Users []uint32
}

// HighWaterMark is the most that a stream may hold, from Send's acceptance to
// the consumer's having handled it. Either bound is enough to make Send wait.
type HighWaterMark struct {
	Bytes    int64 // of message bodies; default 2 MiB
	Messages int64 // default 65,536
}

// Bounds and defaults of a node.
const (
	defaultBudget     = 256 << 20
	defaultMaxMessage = 64 << 20
	maxMaxMessage     = 1 << 30
	defaultHighBytes  = 2 << 20 // what a stream holds stays in the second-level cache
	defaultHighCount  = 1 << 16

	handshakePatience = 5 * time.Second // for the peer's hello
	closePatience     = time.Second     // for the peer's taking our bye
	leavePatience     = time.Second     // for the directory, on leaving: a client makes it good later
)

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		var b [4]byte
		rand.Read(b[:])
		c.Name = "node-" + hex.EncodeToString(b[:])
	}
	if err := directory.CheckName("node", c.Name); err != nil {
		return c, err
	}
	if c.Listen == "" {
		c.Listen = "tcp://127.0.0.1:0"
	}
	c.MemoryBudget = orDefault(c.MemoryBudget, defaultBudget)
	c.MaxMessage = orDefault(c.MaxMessage, defaultMaxMessage)
	c.HeartbeatInterval = orDefault(c.HeartbeatInterval, time.Second)
	c.HeartbeatTimeout = orDefault(c.HeartbeatTimeout, 8*time.Second)
	c.ResumeWindow = orDefault(c.ResumeWindow, time.Minute)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case transport.CheckAddress(c.Listen) != nil:
		return c, &ConfigError{"Listen", c.Listen, "be tcp://host:port, ipc://path or mem://name"}
	case transport.Unspecified(c.Listen):
		return c, &ConfigError{"Listen", c.Listen, "have a host or address at which other nodes reach this one"}
	case c.MemoryBudget < 0:
		return c, &ConfigError{"MemoryBudget", c.MemoryBudget, "not be negative"}
	case c.MaxMessage < 0 || c.MaxMessage > maxMaxMessage:
		return c, &ConfigError{"MaxMessage", c.MaxMessage, fmt.Sprintf("be 1 to %d", maxMaxMessage)}
	case c.HeartbeatInterval < 0:
		return c, &ConfigError{"HeartbeatInterval", c.HeartbeatInterval, "not be negative"}
	case c.HeartbeatTimeout < 3*c.HeartbeatInterval:
		return c, &ConfigError{"HeartbeatTimeout", c.HeartbeatTimeout, fmt.Sprintf("be at least three HeartbeatIntervals of %v", c.HeartbeatInterval)}
	case c.ResumeWindow < 0:
		return c, &ConfigError{"ResumeWindow", c.ResumeWindow, "not be negative"}
	case c.Workers.Mode&^fs.ModePerm != 0:
		return c, &ConfigError{"Workers.Mode", c.Workers.Mode, "be permissions only"}
	case c.Workers.Listen != "" && !strings.HasPrefix(c.Workers.Listen, "ipc://") && !strings.HasPrefix(c.Workers.Listen, "mem://"):
		return c, &ConfigError{"Workers.Listen", c.Workers.Listen, "be ipc://path or mem://name: workers are processes of this host"}
	}
	if c.Workers.Mode == 0 {
		c.Workers.Mode = 0o600
	}
	return c, nil
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// userTimeout is for what was written and is not acknowledged by the peer's
// system: a peer that is heard, but hears nothing itself, is given up by it. What
// is to be acknowledged is written within an interval.
func (c *Config) userTimeout() time.Duration { return c.HeartbeatTimeout - c.HeartbeatInterval }

func (h HighWaterMark) mark() (flow.Mark, error) {
	switch {
	case h.Bytes < 0:
		return flow.Mark{}, &ConfigError{"HighWaterMark.Bytes", h.Bytes, "not be negative"}
	case h.Messages < 0:
		return flow.Mark{}, &ConfigError{"HighWaterMark.Messages", h.Messages, "not be negative"}
	}
	return flow.Mark{
		Bytes:    uint64(orDefault(h.Bytes, defaultHighBytes)),
		Messages: uint64(min(orDefault(h.Messages, defaultHighCount), math.MaxInt32)),
	}, nil
}
