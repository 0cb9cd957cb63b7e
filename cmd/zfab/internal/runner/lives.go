package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/check"
)

// A node that is killed has several lives, one process after another. What a
// life told last (progress.go) is what is known of it afterwards.

var errNotAlive = errors.New("the node is not alive")

// kill ends the node's present process at once. All that it had told is heard
// when kill returns. The caller has to call revive. errNotAlive: the life has
// ended, or not begun, or no other one can be told from it.
func (p *processCluster) kill(node int) error {
	place := p.places[node-1]
	place.mu.Lock()
	n := place.lives[len(place.lives)-1]
	now := place.start.now()
	place.mu.Unlock()
	n.mu.Lock()
	dying := !n.started || n.span.killed || n.span.ended > 0 || n.account.Life >= check.MaxLife
	if !dying {
		n.span.killed, n.span.ended = true, now
	}
	n.mu.Unlock()
	if dying {
		return errNotAlive
	}
	n.Process.Kill()
	n.listening.Wait()
	return nil
}

// revive starts the next life of a node that was killed, and waits until it is
// ready.
func (p *processCluster) revive(ctx context.Context, node int) error {
	place := p.places[node-1]
	before := place.present()
	spec := p.specs[node-1]
	spec.Life = before.told().Life + 1
	n, err := p.launch(spec)
	if n == nil {
		close(before.next)
		return err
	}
	place.mu.Lock()
	place.lives = append(place.lives, n)
	start := place.start
	place.mu.Unlock()
	began := start.now()
	before.renew(began)
	n.mu.Lock()
	n.span.began = began
	n.mu.Unlock()
	if err == nil {
		err = n.waitReady(ctx)
	}
	if err != nil {
		close(before.next)
		return fmt.Errorf("life %d: %w", spec.Life+1, err)
	}
	before.next <- n
	return n.begin(start.start)
}

func (n *nodeProcess) renew(at time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.span.renewed = at
}

// accounted takes what the child told. How much was acknowledged only grows: a
// stream that has just failed may be told of once more as it began.
func (n *nodeProcess) accounted(r Result) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, p := range r.Producers {
		for j := range p.Streams {
			if before := n.account.stream(i, p.Streams[j]); before != nil && !p.Streams[j].Over {
				s := &p.Streams[j]
				s.Accepted, s.Acknowledged = max(s.Accepted, before.Accepted), max(s.Acknowledged, before.Acknowledged)
			}
		}
	}
	n.account = r
}

// stream is what the result says of the same stream of its i-th producer.
func (r *Result) stream(i int, like SentStream) *SentStream {
	if i >= len(r.Producers) {
		return nil
	}
	all := r.Producers[i].Streams
	at := slices.IndexFunc(all, func(s SentStream) bool { return s.Consumer == like.Consumer && s.Epoch == like.Epoch })
	if at < 0 {
		return nil
	}
	return &all[at]
}

// told is what the child told last.
func (n *nodeProcess) told() Result {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.account
}

func (n *nodeProcess) wasKilled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.span.killed
}

// finished notes that the life has told its result: it is not killed any more.
func (n *nodeProcess) finished() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.span.ended = 1 << 62
}

// lifeOf puts the life's times into a result.
func (n *nodeProcess) lifeOf(r Result) Result {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.span = n.span
	return r
}

// reached waits until every present life of a producer has reached every present
// life of a consumer, as far as they are of the given node (0: of any), and
// returns the moment of the run at which that was known.
func (p *processCluster) reached(ctx context.Context, node int) (time.Duration, error) {
	ticker := time.NewTicker(accountInterval / 4)
	defer ticker.Stop()
	for !p.allReached(node) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	place := p.places[0]
	place.mu.Lock()
	defer place.mu.Unlock()
	return place.start.now(), nil
}

func (p *processCluster) allReached(node int) bool {
	var alive []Result
	for _, place := range p.places {
		if n := place.present(); !n.wasKilled() {
			alive = append(alive, n.told())
		} else if node == 0 {
			return false
		}
	}
	for _, from := range alive {
		for _, to := range alive {
			if (node == 0 || from.Node == node || to.Node == node) && !hasReached(from, to) {
				return false
			}
		}
	}
	return true
}

// hasReached reports whether each consumer of one life has something of the
// other's producers.
func hasReached(from, to Result) bool {
	if len(to.Consumers) == 0 || len(from.Producers) == 0 {
		return false // it has told nothing yet
	}
	for _, k := range to.Consumers {
		some := slices.ContainsFunc(k.Streams, func(s check.StreamState) bool {
			return s.Producer == from.Node-1 && s.Epoch.Life() == from.Life && s.Next > 0
		})
		if !some {
			return false
		}
	}
	return true
}

// finish ends the load of every node.
func (p *processCluster) finish() {
	for _, place := range p.places {
		place.present().Tell(order{Finish: true}) // one that is gone is found in run
	}
}
