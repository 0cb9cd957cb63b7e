package patterns

// bell wakes all who wait for something, and costs nothing while nobody does. It is
// under the lock of whoever has it.
type bell struct{ rung chan struct{} }

// next returns what is closed by the next ring. Ask for it under the lock under
// which the condition was found not to hold, so that no ring is missed.
func (b *bell) next() <-chan struct{} {
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}
