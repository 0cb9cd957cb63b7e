package patterns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

func init() { roles["server"] = childServer }

// childServer answers even numbers at once, and odd ones never.
func childServer(ctx context.Context, node *fabric.Node) error {
	r, err := OpenReplier(ctx, node, ReplierConfig[int, string]{Channel: "ask", Concurrency: 1000}, func(ctx context.Context, n int) (string, error) {
		if n%2 != 0 {
			<-ctx.Done()
		}
		return node.Name(), ctx.Err()
	})
	if err != nil {
		return err
	}
	defer r.Close()
	<-ctx.Done()
	return nil
}

// A server's process that is killed fails its calls, or moves them if they are
// idempotent, within a second.
func TestRequestServerKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	kids, dir := newNursery(t)
	ctx := testContext(t)
	node := openNode(t, dir, "client")
	r := openRequesterOf(t, node, RequesterConfig[int, string]{})
	kids.start("server", "killed")
	check(t, r.WaitServers(ctx, 1))
	var once, again []*Pending[string]
	const calls = 200
	for range calls {
		once = append(once, r.Start(ctx, 1, CallOptions{}))
		again = append(again, r.Start(ctx, 1, CallOptions{Idempotent: true}))
	}
	await(t, "the requests to be under way", func() bool { return r.Stats().Requests == 2*calls })
	if name, err := r.Call(ctx, 2); err != nil || name != "killed" { // behind all others
		t.Errorf("%q, %v", name, err)
	}
	openReplierOf(t, node, ReplierConfig[int, string]{}, func(context.Context, int) (string, error) { return "lives", nil })
	check(t, r.WaitServers(ctx, 2))
	kids.kill(0)
	began := time.Now()
	for _, p := range once {
		var lost *ServerLostError
		if _, err := p.Wait(ctx); !errors.As(err, &lost) || lost.Server.Node != "killed" {
			t.Fatal(err)
		}
	}
	for _, p := range again {
		if name, err := p.Wait(ctx); err != nil || name != "lives" {
			t.Fatalf("%q, %v", name, err)
		}
	}
	took := time.Since(began)
	t.Logf("%d calls failed and %d moved within %v of the kill", calls, calls, took)
	if took > time.Second && !raceEnabled {
		t.Errorf("noticed after %v", took)
	}
	if st := r.Stats(); st.Lost != 2*calls || st.Moved != calls {
		t.Errorf("%+v", st)
	}
	if name, err := r.Call(ctx, 1); err != nil || name != "lives" {
		t.Errorf("%q, %v", name, err)
	}
}

// Calls through links that are cut twenty times a second are answered, each once,
// and none is lost.
func TestRequestThroughCuts(t *testing.T) {
	ctx, dir := testContext(t), directory.NewRegistry()
	relays := []*relay{newRelay(t, dir), newRelay(t, dir)}
	var servers []*Replier
	for i, relay := range relays {
		servers = append(servers, openReplierOf(t, openRelayed(t, relay, fabric.Config{Name: fmt.Sprint("s", i)}), ReplierConfig[int, int]{}, double))
	}
	r := openRequesterOf(t, openNodeOf(t, fabric.Config{Name: "c", Directory: hidden{dir}}), RequesterConfig[int, int]{Patience: 20 * time.Second})
	check(t, r.WaitServers(ctx, 2))
	const each = 50 * time.Millisecond
	var stops []func() int
	for _, relay := range relays {
		stops = append(stops, relay.cutEvery(each))
	}
	const callers = 8
	var calling sync.WaitGroup
	var mu sync.Mutex
	calls := 0
	for range callers {
		calling.Go(func() {
			n := 0
			for began := time.Now(); time.Since(began) < 20*each; n++ {
				if a, err := r.Call(ctx, n); err != nil || a != 2*n {
					t.Errorf("%d: %d, %v", n, a, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			calls += n
		})
	}
	calling.Wait()
	cuts := 0
	for _, stop := range stops {
		cuts += stop()
	}
	started := uint64(0)
	for _, s := range servers {
		started += s.Stats().Started
	}
	if st := r.Stats(); started != uint64(calls) || st.Lost+st.LateReplies+st.Moved > 0 || cuts < 10 {
		t.Errorf("%d calls, %d handled, %d cuts: %+v", calls, started, cuts, st)
	}
	t.Logf("%d calls through %d cuts", calls, cuts)
}
