//go:build unix && !solaris && !aix

package transport

import (
	"os"
	"syscall"
)

// lockFile takes the lock at path, waiting for whoever has it. The returned function removes the file and releases it.
func lockFile(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			if err == syscall.EINTR {
				continue
			}
			return nil, os.NewSyscallError("flock", err)
		}
		// The one before us removed the file when it was done: a lock on a removed file locks nobody out.
		locked, err1 := f.Stat()
		current, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(locked, current) {
			return func() {
				os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
	}
}
