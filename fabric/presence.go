package fabric

// Who is there, for those who build on nodes and cannot wait for errors.

// Changed returns what is closed when consumers come or go, or a stream to one
// of them ends or begins anew. Call it before Consumers, so that nothing is
// missed in between.
func (p *Producer) Changed() <-chan struct{} {
	p.channel.mu.Lock()
	defer p.channel.mu.Unlock()
	return p.channel.changed
}

// Connected reports whether there is a connection to the other node now. It says
// nothing of what becomes of streams: they wait for the next connection, for as
// long as Config.ResumeWindow. Who cannot wait that long for an answer may give
// up sooner by it. To itself a node is always connected.
func (n *Node) Connected(node string) bool {
	if node == n.cfg.Name {
		return true
	}
	n.mu.Lock()
	p := n.peers[node]
	n.mu.Unlock()
	return p != nil && p.link.Up()
}
