package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/zfab/zfab/fabric/directory"
)

// soakVariable in the environment makes the campaign a long one.
const soakVariable = "ZFAB_ETCD_SOAK"

// Leaders and directories are killed, one after the other, and come back, while
// nodes exchange messages that they found through these directories. No link
// notices, no message is lost, and names are claimed all the time by incarnations
// that only grow.
func TestDirectoriesAndLeadersDie(t *testing.T) {
	leaders, directories := 2, 5
	if os.Getenv(soakVariable) != "" {
		leaders, directories = 20, 50
	}
	c := newCluster(t)
	var all []*program
	var addresses []string
	for range 3 {
		p, address := c.directory(t)
		all, addresses = append(all, p), append(addresses, address)
	}
	x := startExchange(t, addresses)
	names := startClaims(t, addresses)

	rng := rand.New(rand.NewPCG(1, 1))
	var faults []func()
	for range leaders {
		faults = append(faults, func() { c.killLeader(t) })
	}
	for i := range directories {
		faults = append(faults, func() { killDirectory(t, all[i%len(all)], addresses[i%len(all)], rng) })
	}
	rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	began := time.Now()
	for i, fault := range faults {
		received, given := x.received.Load(), names.given.Load()
		fault()
		if err := x.failed(); err != nil {
			t.Fatalf("after fault %d: %v", i, err)
		}
		// The next one strikes a fabric that has gone on, and directories that answer.
		until(t, "work", func() bool { return x.received.Load() > received+200 && names.given.Load() > given+2 })
	}
	t.Logf("%d leaders and %d directories killed in %v", leaders, directories, time.Since(began).Round(time.Second))
	names.finish(t)
	x.finish(t)
}

// killLeader kills a leader, and brings it back once there is another.
func (c *cluster) killLeader(t *testing.T) {
	t.Helper()
	old := c.leader(t)
	c.members[old].kill()
	if c.leader(t) == old {
		t.Fatal("a dead leader leads")
	}
	mustStart(t, c.members[old])
	c.leader(t)
}

// killDirectory kills a directory, and brings it back at the same address after a
// while.
func killDirectory(t *testing.T, p *program, address string, rng *rand.Rand) {
	t.Helper()
	p.kill()
	time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond) // how long it is away
	until(t, "its start", func() bool { return p.start() == nil })
	until(t, "its answer", func() bool { return answers(t.Context(), address) == nil })
}

// answers asks one directory.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := directory.Dial(ctx, address, directory.Options{Logger: quiet})
	if err != nil {
		return err
	}
	_, err = c.Nodes(ctx)
	return errors.Join(err, c.Close())
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %v", what, patience)
		}
	}
}
