package transport

import "golang.org/x/sys/unix"

// readBoth reads into the first of to, and into the second what comes behind it.
func readBoth(fd int, to *[2][]byte) (int, error) { return unix.Readv(fd, to[:]) }
