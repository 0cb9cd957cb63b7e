package patterns

import "github.com/zfab/zfab/fabric"

// partition is the events of some keys, in order, as a publisher has them. Under its
// mu.
type partition struct {
	index uint64
	key   []byte // by which its owner is chosen
	last  uint64 // sequence of the last event that was published

	// The first sent of the events are the owner's, and not acknowledged yet. It has as
	// many as it has room for, or all.
	events []event
	sent   int
	bytes  int64
	fewer  bell // there is room for more

	owner  *member[struct{}] // nil: nobody's
	chosen *member[struct{}] // who is to be the owner; nil if there is no member
	epoch  uint64            // of owner
}

// event is one event that is not acknowledged.
type event struct {
	body       parcel // key and value
	key        int    // the key's size
	sequence   uint64
	deliveries uint64
}

// rebalance chooses owners anew, if members have come or gone since. Under mu.
func (p *eventPublisher) rebalance() {
	for p.members.places == nil { // again, if one turns out to be gone
		for i := range p.parts {
			p.parts[i].chosen = p.members.owner(p.parts[i].key)
		}
		for i := range p.parts {
			_ = p.advance(&p.parts[i]) // counted
		}
	}
}

// lost takes a member's partitions away, who is gone for good.
func (p *eventPublisher) lost(m *member[struct{}], _ string) {
	for i := range p.parts {
		if part := &p.parts[i]; part.owner == m {
			part.owner, part.sent = nil, 0
		}
	}
}

// advance moves a partition that is to move and can, and sends its owner what it has
// room for. It waits for nothing. An error is that of the last event that was
// dropped. Under mu.
func (p *eventPublisher) advance(part *partition) (dropped error) {
	if part.owner != part.chosen && part.sent == 0 {
		if part.owner != nil && part.chosen != nil {
			p.stats.Moved++
		}
		part.owner = part.chosen
		part.epoch++
	}
	m := part.owner
	if m == nil || m != part.chosen || m.gone {
		return nil
	}
	for part.sent < len(part.events) && part.sent < m.seat.room {
		e := &part.events[part.sent]
		var mem [headRoom]byte
		head := appendRecord(mem[:0], kindEvent, p.index(), part.index, part.epoch, e.sequence, e.deliveries+1, uint64(e.key))
		switch err := e.body.trySend(m.target, head); {
		case err == nil:
			if part.sent++; e.deliveries > 0 {
				p.stats.Redelivered++
			}
			e.deliveries++
		case tooLarge(err):
			dropped = err
			p.stats.Dropped++
			p.dropped.Events, p.dropped.Err = p.dropped.Events+1, err
			p.forget(part, part.sent, 1)
		default: // it takes no more, or the publisher is closed
			p.members.retire(m)
			return dropped
		}
	}
	return dropped
}

// upTo takes a member's word that it has acknowledged all up to a sequence.
func (p *eventPublisher) upTo(part *partition, from fabric.Address, epoch, sequence uint64) {
	if part.owner == nil || part.owner.source != from || part.epoch != epoch {
		p.stats.Late++
		return
	}
	n := 0
	for n < part.sent && part.events[n].sequence <= sequence {
		n++
	}
	p.stats.Acknowledged += uint64(n)
	part.sent -= n
	p.forget(part, 0, n)
	_ = p.advance(part) // counted
}

// forget gives up n events from at on.
func (p *eventPublisher) forget(part *partition, at, n int) {
	for _, e := range part.events[at : at+n] {
		part.bytes -= int64(len(e.body.body()))
		e.body.release()
	}
	if at == 0 {
		clear(part.events[:n])
		part.events = part.events[n:]
	} else {
		part.events = append(part.events[:at], part.events[at+n:]...)
	}
	p.count -= n
	part.fewer.ring()
	p.fewer.ring()
}

// clear gives up all events.
func (part *partition) clear() {
	for _, e := range part.events {
		e.body.release()
	}
	part.events, part.sent, part.bytes = nil, 0, 0
}
