package etcd

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

var (
	registrations = flag.Int("registrations", 2000, "how many TestRegistrations makes, in nodes of 100")
	renewing      = flag.Int("renewing", 50, "how many nodes renew in TestRenewing")
	renewFor      = flag.Duration("renewfor", 3*time.Second, "for how long")
)

const (
	perNode = 100 // registrations: the node and its members
	owners  = 10  // clients that hold them
)

// How a directory with many registrations does: with `-registrations 100000` the
// figures of RESULTS.md. It holds that all are there, and again after a restart.
func TestRegistrations(t *testing.T) {
	t.Run("memory", func(t *testing.T) { manyRegistrations(t, "memory", nil) })
	t.Run("data", func(t *testing.T) {
		manyRegistrations(t, "data", []string{"--data", filepath.Join(t.TempDir(), "data")})
	})
	t.Run("etcd", func(t *testing.T) {
		c := newCluster(t)
		manyRegistrations(t, "etcd", []string{"--store", c.store()})
	})
}

// directoryProcess runs a directory of any kind.
func directoryProcess(t *testing.T, flags []string) (p *program, address string) {
	t.Helper()
	binary := zfab(t)
	address = "tcp://" + free(t)
	p = &program{name: "directory", ready: address, command: func() *exec.Cmd {
		return exec.Command(binary, append([]string{"directory", "--listen", address}, flags...)...)
	}}
	killAtEnd(t, p)
	mustStart(t, p)
	return p, address
}

func manyRegistrations(t *testing.T, kind string, flags []string) {
	p, address := directoryProcess(t, flags)
	count := *registrations / perNode
	idle := resident(t, p)
	began := time.Now()
	var running sync.WaitGroup
	for i := range owners {
		d := dial(t, []string{address}, 0)
		running.Go(func() {
			for n := i; n < count; n += owners {
				if err := registerNode(t.Context(), d, fmt.Sprintf("node-%05d", n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	took := time.Since(began)
	p50, p99 := lookUps(t, address, count)
	t.Logf("%s: %d registrations in %v, %.1f MB of memory more; look-up p50 %v, p99 %v", kind, count*perNode,
		took.Round(time.Millisecond), float64(resident(t, p)-idle)/1e6, p50.Round(time.Microsecond), p99.Round(time.Microsecond))

	p.kill()
	began = time.Now()
	mustStart(t, p)
	d := dial(t, []string{address}, 0)
	all := func() bool {
		s, err := d.Status(t.Context())
		return err == nil && s.Nodes == count && s.Members == count*(perNode-1)
	}
	up := time.Since(began)
	until(t, "all registrations", all)
	t.Logf("%s: up %v after the restart, and all are there after %v; %.1f MB of memory", kind,
		up.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), float64(resident(t, p))/1e6)
}

// registerNode registers a node with its members: 16 channels, as many producers
// as consumers.
func registerNode(ctx context.Context, d *directory.Client, name string) error {
	incarnation, err := d.Join(ctx, directory.NodeInfo{Name: name, Endpoint: "tcp://" + name + ".example.com:7400", Zone: "eu", Host: name})
	if err != nil {
		return err
	}
	members := make([]directory.Member, perNode-1)
	for i := range members {
		members[i] = directory.Member{Channel: fmt.Sprintf("channel-%02d", i%16), Role: directory.Role(1 + i/16%2), Node: name, Index: i / 32}
	}
	return d.Add(ctx, incarnation, members...)
}

// lookUps measures look-ups of nodes, by some clients at once.
func lookUps(t *testing.T, address string, count int) (p50, p99 time.Duration) {
	t.Helper()
	const askers, each = 4, 2500
	var mu sync.Mutex
	var all []time.Duration
	var running sync.WaitGroup
	for i := range askers {
		d := dial(t, []string{address}, 0)
		running.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			var own []time.Duration
			for range each {
				name := fmt.Sprintf("node-%05d", rng.IntN(count))
				began := time.Now()
				if e, err := d.Lookup(t.Context(), name); err != nil || e.Stale {
					t.Errorf("%s: %+v, %v", name, e, err)
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, own...)
		})
	}
	running.Wait()
	if len(all) == 0 {
		t.FailNow()
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

// What it costs that nodes renew: with `-renewing 1000 -renewfor 60s` the figures
// of RESULTS.md. Each node has a client of its own, with a lease of 15 s.
func TestRenewing(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		p, address := directoryProcess(t, nil)
		renewalCost(t, address, []*program{p})
	})
	t.Run("etcd", func(t *testing.T) {
		c := newCluster(t)
		p, address := c.directory(t)
		renewalCost(t, address, append([]*program{p}, c.members...))
	})
}

func renewalCost(t *testing.T, address string, programs []*program) {
	clients := make([]*directory.Client, *renewing)
	names := make([]string, len(clients))
	for i := range clients {
		clients[i], names[i] = dial(t, []string{address}, 0), fmt.Sprintf("node-%05d", i)
		if err := registerNode(t.Context(), clients[i], names[i]); err != nil {
			t.Fatal(err)
		}
	}
	before := make([]time.Duration, len(programs))
	for i, p := range programs {
		before[i] = used(t, p)
	}
	began := time.Now()
	time.Sleep(*renewFor) // what is measured
	took := time.Since(began)
	for i, p := range programs {
		t.Logf("%s: %d nodes renew for %.1f %% of a core", p.name, len(clients), 100*(used(t, p)-before[i]).Seconds()/took.Seconds())
	}
	entries, err := clients[0].Entries(t.Context())
	if err != nil || len(entries) != len(clients) {
		t.Fatalf("%d nodes are there, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Orphan || e.Lease < directory.DefaultLease/3 {
			t.Errorf("%+v was not renewed", e)
		}
	}
}

// used is the processor time that a program has had.
func used(t *testing.T, p *program) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // from the third on
	var ticks int
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// resident is the memory that a program has, in bytes.
func resident(t *testing.T, p *program) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
