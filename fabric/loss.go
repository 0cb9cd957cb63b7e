package fabric

import (
	"fmt"

	"github.com/zfab/zfab/fabric/internal/link"
)

// maxLosses is how many lost streams a producer that does not flush is told of
// one by one: enough for every consumer of a large channel once.
const maxLosses = 1 << 10

// losses is what a producer's next Flush tells: the streams that were lost since
// the last one, with messages in doubt.
type losses struct {
	list []error // *PeerLostError
	more MoreLostError
}

// MoreLostError ends a long list of *PeerLostError: so many streams were lost
// besides, with so many messages in doubt. Who flushes, or sends to consumers
// that are there, does not get that far.
type MoreLostError struct {
	Streams int
	InDoubt uint64
}

func (e *MoreLostError) Error() string {
	return fmt.Sprintf("%d more consumers were lost, with %d messages in doubt", e.Streams, e.InDoubt)
}

func (l *losses) add(err *PeerLostError) {
	if len(l.list) < maxLosses {
		l.list = append(l.list, err)
		return
	}
	l.more.Streams++
	l.more.InDoubt += err.InDoubtTo - err.Acknowledged
}

// take returns what there is to tell, and forgets it.
func (l *losses) take() []error {
	list := l.list
	if l.more.Streams > 0 {
		more := l.more
		list = append(list, &more)
	}
	*l = losses{}
	return list
}

// lost tells all producers here what is in doubt with a stream that has failed:
// once, whoever sees it first. Under mu.
func (ch *channel) lost(s *link.SendStream) {
	lost, ok := public(s.TakeLoss()).(*PeerLostError)
	if !ok {
		return
	}
	for _, p := range ch.producers {
		p.losses.add(lost)
	}
}
