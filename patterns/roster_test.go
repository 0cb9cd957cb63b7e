package patterns

import (
	"context"
	"sync"
	"testing"

	"github.com/zfab/zfab/fabric"
)

// A member that could not be met yet has nothing: it would take what comes for that of
// an earlier one. It is given work once it was.
func TestMemberThatIsNotMetYet(t *testing.T) {
	nodes := openNodes(t, 2)
	ctx := testContext(t)
	producer, err := nodes[0].Producer(ctx, "jobs", fabric.ProducerConfig{})
	check(t, err)
	if _, err := nodes[1].Consumer(ctx, "jobs", fabric.ConsumerConfig{}); err != nil {
		t.Fatal(err)
	}
	check(t, producer.WaitConsumers(ctx, 1))
	full := true
	r := newRoster(nodes[0], producer, minPatience, func(*member[struct{}], string) {})
	r.meet = func(*member[struct{}]) error {
		if full {
			return fabric.ErrHighWater
		}
		return nil
	}
	came := r.came
	m := r.hello(fabric.Address{Node: nodes[1].Name(), Index: 0}, 1, 0, 1)
	if r.owner([]byte("key")) != nil || r.balance.pick() != nil || len(r.present()) != 0 {
		t.Error("it has work before it was met")
	}
	full = false
	r.reachAll()
	if r.owner([]byte("key")) != m || r.balance.pick() == nil || len(r.present()) != 1 {
		t.Error("it has no work although it was met")
	}
	select {
	case <-came:
	default:
		t.Error("nobody who waits for it is told")
	}
}

// A member whose hello comes before its consumer is known, and whose consumer is known
// before anybody looks after the roster, is given work all the same: nothing may change
// any more that would have it looked for again.
func TestMembersThatCameBeforeTheWatch(t *testing.T) {
	const channel = "jobs"
	nodes := openNodes(t, 2)
	ctx := testContext(t)
	from := fabric.Address{Node: nodes[1].Name(), Index: 0}

	pusher := &pusher{node: nodes[0]}
	pusher.cfg, _ = pusherConfig{channel: channel}.withDefaults()
	requester := &requester{node: nodes[0]}
	publisher := &eventPublisher{parts: make([]partition, 1)}
	var err error
	if pusher.main, err = openLane(ctx, pusher, channel); err != nil {
		t.Fatal(err)
	}
	if requester.producer, err = nodes[0].Producer(ctx, channel, fabric.ProducerConfig{}); err != nil {
		t.Fatal(err)
	}
	publisher.producer = requester.producer
	requester.servers = newRoster(nodes[0], requester.producer, defaultRequestPatience, requester.lost)
	publisher.members = newRoster(nodes[0], publisher.producer, 0, publisher.lost)

	pusher.mu.Lock()
	pusher.main.workers.hello(from, 1, 0, 1).who.lane = pusher.main
	pusher.mu.Unlock()
	requester.servers.hello(from, 1, 0, 1)
	publisher.members.hello(from, 1, 0, 1)
	if _, err := nodes[1].Consumer(ctx, channel, fabric.ConsumerConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := requester.producer.WaitConsumers(ctx, 1); err != nil {
		t.Fatal(err)
	}

	var watching sync.WaitGroup
	defer watching.Wait()
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	pusher.ctx, requester.ctx, publisher.ctx = watched, watched, watched
	pusher.wg.Add(1)
	watching.Go(pusher.main.keep)
	watching.Go(requester.keep)
	watching.Go(publisher.follow)
	for name, wait := range map[string]func() (int, error){
		"pusher":    func() (int, error) { return waitMembers(ctx, watched, &pusher.mu, pusher.main.workers, 1) },
		"requester": func() (int, error) { return waitMembers(ctx, watched, &requester.mu, requester.servers, 1) },
		"publisher": func() (int, error) { return waitMembers(ctx, watched, &publisher.mu, publisher.members, 1) },
	} {
		if n, err := wait(); err != nil {
			t.Errorf("%s: knows %d, %v", name, n, err)
		}
	}
}
