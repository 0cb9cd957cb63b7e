package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// probeTimeout bounds the attempt to connect that tells a live socket file from a stale one: connecting to a unix socket
// either fails at once, or waits because a listener is there.
const probeTimeout = time.Second

// listenIPC listens on a unix socket. A socket file that a dead process left is replaced; a live one is ErrAddressInUse.
// A file that is no socket is never touched.
func listenIPC(path string) (net.Listener, error) {
	if strings.HasPrefix(path, "@") { // Linux's abstract names leave no file behind
		return net.Listen("unix", path)
	}
	// Two processes may find the same stale file at the same time, and a socket that is bound and not yet listening
	// looks stale as well: so all of this is under a lock, whose file lives only as long as somebody needs it.
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	nl, err := net.Listen("unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nl, tooLong(path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// removeStale removes the socket file at path if nobody listens on it.
func removeStale(path string) error {
	found, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case found.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: the file is not a socket", ErrAddressInUse)
	}
	nc, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		nc.Close()
		return fmt.Errorf("%w: a live listener answers", ErrAddressInUse)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", ErrAddressInUse, err)
	}
	return os.Remove(path)
}

// maxIPCPath is the longest path that every system's sockets take; Linux's take 107.
const maxIPCPath = 103

// tooLong says in plain words what the system calls an invalid argument.
func tooLong(path string, err error) error {
	if len(path) > maxIPCPath && errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("%w: a path of %d bytes is too long for a socket: %w", ErrInvalidAddress, len(path), err)
	}
	return err
}

// ipcBuffer is what a unix socket is to hold that was written and is not read yet, in bytes: two of the largest writes.
// The system may give less. It counts more than the bytes alone.
const ipcBuffer = 1 << 20

// setIPCOptions prepares a fresh connection over a unix socket.
func setIPCOptions(nc net.Conn) {
	if uc, ok := nc.(*net.UnixConn); ok {
		uc.SetWriteBuffer(ipcBuffer)
	}
}
