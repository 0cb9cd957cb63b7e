// Package interop holds fabric against the original: programs with plain libzmq
// sockets and a MessagePack library (plain/), written from the pages
// fabric/internal/wire/SPEC.md and fabric/directory/PROTOCOL.md alone, join a
// link from either side and ask the directory.
//
// The programs are built when the tests start, with the tag libzmq; where a C
// compiler or libzmq's headers are missing the tests are skipped.
package interop
