package fabric

import "github.com/zfab/zfab/fabric/internal/mpcheck"

// CheckMessagePack reports whether body is exactly one well-formed MessagePack
// value that nests at most maxDepth arrays and maps, at most 64. Who decodes what
// a peer has sent calls it first: a decoder that trusts lengths can be made to
// ask for gigabytes with five bytes, or to recurse until the stack ends. What
// passes claims no more bytes and elements than are there, so that decoding it
// takes memory in proportion to its length.
//
// It takes time linear in len(body) and allocates nothing but the error, which
// says what is wrong and at which byte.
func CheckMessagePack(body []byte, maxDepth int) error { return mpcheck.Check(body, maxDepth) }
