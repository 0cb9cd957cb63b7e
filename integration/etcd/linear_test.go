package etcd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/zfab/zfab/fabric/directory"
)

const (
	histories = 200 // of each kind of directory
	together  = 50  // at once
	clients   = 3   // of each history
	acts      = 14  // of each client
)

// What clients are told, of one name each history, can be what a table told that
// does one thing at a time: of one directory in memory; of one that keeps its
// table and is killed meanwhile; and of three that share etcd, while one of them
// and a leader are killed.
func TestLinearizable(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		registry, err := directory.OpenRegistry(directory.RegistryConfig{Lease: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer registry.Close()
		server, err := directory.Serve(t.Context(), registry, "tcp://127.0.0.1:0", quiet)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		linear(t, []string{server.Addr()}, 300*time.Millisecond, 40*time.Millisecond, 500*time.Millisecond, func() {})
	})
	t.Run("data", func(t *testing.T) {
		binary, address, dir := zfab(t), "tcp://"+free(t), filepath.Join(t.TempDir(), "data")
		p := &program{name: "directory", ready: address, command: func() *exec.Cmd {
			return exec.Command(binary, "directory", "--listen", address, "--data", dir, "--lease", "500ms")
		}}
		killAtEnd(t, p)
		mustStart(t, p)
		known(t, address)
		linear(t, []string{address}, 500*time.Millisecond, 60*time.Millisecond, time.Second, func() {
			p.kill()
			mustStart(t, p)
		})
	})
	t.Run("etcd", func(t *testing.T) {
		c := newCluster(t)
		var all []*program
		var addresses []string
		for range 3 {
			p, address := c.directory(t, "--lease", "1s")
			all, addresses = append(all, p), append(addresses, address)
			known(t, address)
		}
		rng := rand.New(rand.NewPCG(5, 5))
		linear(t, addresses, time.Second, 150*time.Millisecond, 3*time.Second, func() {
			i := rng.IntN(len(all))
			killDirectory(t, all[i], addresses[i], rng)
			c.killLeader(t)
		})
	})
}

// known waits until a directory says that somebody is not there.
func known(t *testing.T, address string) {
	t.Helper()
	until(t, "the end of warming up", func() bool {
		a, err := newAsker(address, "")
		if err != nil {
			return false
		}
		defer a.close()
		r, err := a.ask(map[string]any{"op": "node", "node": "nobody"})
		return err == nil && r.Error == "unknown_node"
	})
}

// linear records histories, with trouble once while each lot of them runs, and
// checks them.
func linear(t *testing.T, addresses []string, lease, pace, rest time.Duration, trouble func()) {
	var all []*history
	for len(all) < histories {
		var lot []*history
		var running sync.WaitGroup
		for range together {
			h := newHistory(fmt.Sprintf("h%d", len(all)+len(lot)))
			lot = append(lot, h)
			for i := range clients {
				running.Go(func() { play(h, i, addresses, lease, pace, rest) })
			}
		}
		until(t, "the middle of the histories", func() bool { return recorded(lot) > together*clients*acts/2 })
		trouble()
		running.Wait()
		all = append(all, lot...)
	}
	calls, refused, expired, unknown := map[verb]int{}, map[string]int{}, 0, 0 // refused by verb, and by verb and code
	for _, h := range all {
		if h.broken != nil {
			t.Errorf("%s: %v", h.name, h.broken)
		}
		if result := legal(h.operations); result != porcupine.Ok {
			t.Errorf("%s: %v; see %s", h.name, result, show(t, h))
		}
		for verb, n := range h.calls {
			calls[verb] += n
		}
		for code, n := range h.refused {
			verb, _, _ := strings.Cut(code, ":")
			refused[code] += n
			refused[verb] += n
		}
		expired += h.expired
		unknown += h.unknown
	}
	t.Logf("%d histories: answered %v, of these refused %v; %d leases found over, %d questions without an answer",
		len(all), calls, refused, expired, unknown)
	for _, v := range []verb{register, resume, lookUp, renew, leave} {
		if calls[v]-refused[string(v)] < histories/10 {
			t.Errorf("%s was answered %d times in %d histories, and refused %d times of these", v, calls[v], histories, refused[string(v)])
		}
	}
	if expired < histories/20 {
		t.Errorf("%d leases ended in %d histories", expired, histories)
	}
}

// recorded counts the operations so far.
func recorded(lot []*history) (n int) {
	for _, h := range lot {
		h.mu.Lock()
		n += len(h.operations)
		h.mu.Unlock()
	}
	return n
}

// play is a client's part in a history.
func play(h *history, number int, addresses []string, lease, pace, rest time.Duration) {
	c := newClient(h, number, addresses, lease)
	for range acts {
		time.Sleep(time.Duration(c.rng.Int64N(int64(pace)))) // a pace
		c.act(rest)
	}
	c.end()
}

// show draws a history that is not legal, for people.
func show(t *testing.T, h *history) string {
	t.Helper()
	_, info := porcupine.CheckOperationsVerbose(model, h.operations, 10*time.Second)
	f, err := os.CreateTemp("", "zfab-history-*.html")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if err := porcupine.Visualize(model, info, f); err != nil {
		return err.Error()
	}
	return f.Name()
}

// The checker is no use unless it finds what is wrong: look-ups that are answered
// from memory, a name that is given twice, a lease that ends too soon.
func TestCheckerFindsViolations(t *testing.T) {
	registry, err := directory.OpenRegistry(directory.RegistryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	server, err := directory.Serve(t.Context(), registry, "tcp://127.0.0.1:0", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, stale := range []bool{false, true} {
		h := newHistory(fmt.Sprint("stale-", stale))
		a, b := newClient(h, 0, []string{server.Addr()}, time.Hour), newClient(h, 1, []string{server.Addr()}, time.Hour)
		b.stale = stale
		if !a.connect() || !b.connect() {
			t.Fatal("no directory")
		}
		a.register()
		b.lookUp()
		a.renew()
		a.leave()
		b.lookUp()
		a.end()
		b.end()
		want := porcupine.Ok
		if stale {
			want = porcupine.Illegal
		}
		if got := legal(h.operations); got != want || len(h.operations) != 8 {
			t.Errorf("look-ups from memory: %v; %d operations are %v, want %v", stale, len(h.operations), got, want)
		}
	}

	at := func(client int, q question, r reply, call, end int64) porcupine.Operation {
		q.id = int(call)
		return porcupine.Operation{ClientId: client, Input: q, Output: r, Call: call, Return: end}
	}
	joined := at(0, question{verb: register, session: "a", endpoint: "a"}, reply{incarnation: 7}, 1, 2)
	found := reply{incarnation: 7, endpoint: "a"}
	for name, c := range map[string]struct {
		operations []porcupine.Operation
		want       porcupine.CheckResult
	}{
		"given twice": {[]porcupine.Operation{joined,
			at(1, question{verb: register, session: "b", endpoint: "b"}, reply{incarnation: 8}, 3, 4)}, porcupine.Illegal},
		"given to the next when the first is lost": {[]porcupine.Operation{joined,
			at(0, question{verb: lose, session: "a"}, reply{}, 2, never),
			at(1, question{verb: register, session: "b", endpoint: "b"}, reply{incarnation: 8}, 3, 4)}, porcupine.Ok},
		"a lower incarnation": {[]porcupine.Operation{joined,
			at(0, question{verb: leave, session: "a", incarnation: 7}, reply{}, 3, 4),
			at(1, question{verb: register, session: "b", endpoint: "b"}, reply{incarnation: 6}, 5, 6)}, porcupine.Illegal},
		"an equal incarnation after it left": {[]porcupine.Operation{joined,
			at(0, question{verb: leave, session: "a", incarnation: 7}, reply{}, 3, 4),
			at(0, question{verb: resume, session: "a", endpoint: "a", incarnation: 7}, reply{incarnation: 7}, 5, 6)}, porcupine.Illegal},
		"gone without a reason": {[]porcupine.Operation{joined,
			at(1, question{verb: lookUp}, reply{refusal: "unknown_node"}, 3, 4)}, porcupine.Illegal},
		"a lease that ended": {[]porcupine.Operation{joined,
			at(0, question{verb: expire, of: 1}, reply{}, 3, never),
			at(1, question{verb: lookUp}, reply{refusal: "unknown_node"}, 4, 5)}, porcupine.Ok},
		"a lease that ended too soon": {[]porcupine.Operation{joined,
			at(0, question{verb: expire, of: 1}, reply{}, 6, never),
			at(1, question{verb: lookUp}, reply{refusal: "unknown_node"}, 4, 5)}, porcupine.Illegal},
		"a lease that ended though it was renewed": {[]porcupine.Operation{joined,
			at(0, question{verb: renew, session: "a", incarnation: 7}, reply{}, 3, 4),
			at(0, question{verb: expire, of: 1}, reply{}, 5, never),
			at(1, question{verb: lookUp}, reply{refusal: "unknown_node"}, 6, 7)}, porcupine.Illegal},
		"there and gone and there": {[]porcupine.Operation{joined,
			at(0, question{verb: expire, of: 1}, reply{}, 3, never),
			at(1, question{verb: lookUp}, found, 4, 5), at(1, question{verb: lookUp}, reply{refusal: "unknown_node"}, 6, 7),
			at(1, question{verb: lookUp}, found, 8, 9)}, porcupine.Illegal},
	} {
		if got := legal(c.operations); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
