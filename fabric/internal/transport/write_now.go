package transport

// nowWriter writes what a connection takes at once.
type nowWriter interface {
	writeNow(p []byte) (n int, err error)
}

// WriteNow writes as much of p as the connection takes without waiting, and returns how much that was: 0 if it takes
// nothing, or cannot say. What is left has to be written next, with WriteBuffers. It belongs to the writer, as
// WriteBuffers does, and its errors are as final. While a control command is pending it writes nothing.
func (c *Conn) WriteNow(p []byte) (n int, err error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	if c.now == nil || c.control.pending.Load() {
		return 0, nil
	}
	n, err = c.now.writeNow(p)
	if err != nil {
		return n, c.writeFailed(err)
	}
	return n, nil
}
