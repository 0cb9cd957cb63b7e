package patterns

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zfab/zfab/fabric"
	"github.com/zfab/zfab/fabric/directory"
)

// Processes of their own, to be killed: the test's binary again, told by this
// variable what to be.
const childVariable = "ZFAB_PATTERNS_CHILD"

// child is what a process is to be.
type child struct {
	Role, Directory, Name string
}

// roles are what a process can be, until it is killed or ctx ends.
var roles = map[string]func(ctx context.Context, node *fabric.Node) error{"worker": childWorker}

func TestMain(m *testing.M) {
	if spec := os.Getenv(childVariable); spec != "" {
		if err := beChild(spec); err != nil && lostPeer(err) == nil { // the test may end first
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func beChild(spec string) error {
	var c child
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // should nobody kill it
	defer cancel()
	dir, err := directory.Dial(ctx, c.Directory, directory.Options{})
	if err != nil {
		return err
	}
	defer dir.Close()
	node, err := fabric.Open(ctx, fabric.Config{Name: c.Name, Directory: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer node.Close()
	return roles[c.Role](ctx, node)
}

// nursery starts processes, and kills them all at the test's end.
type nursery struct {
	t         testing.TB
	directory string
	running   []*exec.Cmd
}

// newNursery returns a directory for this process and its children.
func newNursery(t testing.TB) (*nursery, *directory.Registry) {
	t.Helper()
	return newNurseryOf(t, directory.DefaultLease)
}

// newNurseryOf is newNursery whose children are registered for a lease.
func newNurseryOf(t testing.TB, lease time.Duration) (*nursery, *directory.Registry) {
	t.Helper()
	dir, address := newLeased(t, lease)
	n := &nursery{t: t, directory: address}
	t.Cleanup(func() {
		for len(n.running) > 0 {
			n.kill(0)
		}
	})
	return n, dir
}

func (n *nursery) start(role, name string) {
	n.t.Helper()
	spec, err := json.Marshal(child{role, n.directory, name})
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(spec))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.running = append(n.running, cmd)
}

// kill ends the i-th process that runs, with SIGKILL.
func (n *nursery) kill(i int) {
	cmd := n.running[i]
	n.running = append(n.running[:i], n.running[i+1:]...)
	check(n.t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
}

// report is a worker's word that it has done a job: which it got in a process of that
// number, as the so-many-th.
type report struct {
	Job, Deliveries int
	Process, Nth    int
}

// childWorker does jobs that take a millisecond or three. It reports each before
// it acknowledges it, so that what is acknowledged was done.
func childWorker(ctx context.Context, node *fabric.Node) error {
	reports, err := OpenPusher(ctx, node, PusherConfig[report]{Channel: "reports"})
	if err != nil {
		return err
	}
	w, err := OpenPuller(ctx, node, PullerConfig[int]{Channel: "jobs", InFlight: 4})
	if err != nil {
		return err
	}
	got := 0
	for j, err := range w.Jobs(ctx) {
		if err != nil {
			return err
		}
		got++
		time.Sleep(time.Duration(1+j.Value%3) * time.Millisecond) // is the work
		if err := reports.Push(ctx, report{j.Value, j.Deliveries(), os.Getpid(), got}); err != nil {
			return err
		}
		if err := reports.Flush(ctx); err != nil {
			return err
		}
		if err := j.Ack(); err != nil {
			return err
		}
	}
	return nil
}

// Twenty workers are killed in the middle of jobs, by SIGKILL, and replaced: half
// of them by processes of the same name. Each job is acknowledged exactly once;
// none is lost; a delivery after the first is marked as one.
func TestPipelineWorkersKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 24 processes")
	}
	kids, dir := newNursery(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	node := openNode(t, dir, "pusher")
	p := openPusherOf(t, node, PusherConfig[int]{Patience: 200 * time.Millisecond})
	reports := openPullerOf(t, node, PullerConfig[report]{Channel: "reports"})
	const workers, kills = 4, 20
	name := func(i int) string { return fmt.Sprint("worker", i) }
	for i := range workers {
		kids.start("worker", name(i))
	}
	check(t, p.WaitWorkers(ctx, workers))

	told := make(map[report]int)
	var hearing sync.WaitGroup
	heard, stop := context.WithCancel(ctx)
	hearing.Go(func() {
		for j, err := range reports.Jobs(heard) {
			if err == nil {
				told[j.Value]++
				err = j.Ack()
			}
			if heard.Err() == nil && err != nil && lostPeer(err) == nil {
				t.Error(err)
			}
		}
	})
	var pushing sync.WaitGroup
	enough := make(chan struct{})
	jobs := 0
	pushing.Go(func() {
		for {
			select {
			case <-enough:
				return
			default:
			}
			if err := p.Push(ctx, jobs); err != nil {
				t.Error(err)
				return
			}
			jobs++
		}
	})
	names := []string{name(0), name(1), name(2), name(3)}
	for i := range kills {
		victim := rand.IntN(len(kids.running))
		at := names[victim]
		await(t, "a victim with jobs", func() bool {
			for _, w := range p.Stats().Workers {
				if w.Address.Node == at && w.Outstanding > 0 && w.Settled > 0 {
					return true
				}
			}
			return false
		})
		kids.kill(victim)
		names = append(names[:victim], names[victim+1:]...)
		next := at
		if i%2 == 0 {
			next = name(workers + i)
		}
		kids.start("worker", next)
		names = append(names, next)
	}
	close(enough)
	pushing.Wait()
	check(t, p.Flush(ctx))
	st := p.Stats()
	await(t, "the last report", func() bool { return reports.Stats().InHand == 0 })
	stop()
	hearing.Wait()
	// A report itself may come twice, if its worker was killed before it knew that it was
	// heard. But no two deliveries of a job have the same number.
	done, redone := make(map[int]int), 0
	type delivery struct{ job, number int }
	by := make(map[delivery]report)
	for r := range told {
		done[r.Job]++
		if r.Deliveries > 1 {
			redone++
		}
		d := delivery{r.Job, r.Deliveries}
		if other, twice := by[d]; twice {
			t.Errorf("%+v and %+v are both said to be delivery %d", other, r, r.Deliveries)
		}
		by[d] = r
	}
	if len(done) != jobs || st.Settled != uint64(jobs) || st.Pushed != uint64(jobs) || st.Unsettled != 0 || st.Dropped != 0 {
		t.Errorf("%d jobs, %d done: %+v", jobs, len(done), st)
	}
	if st.Redelivered < kills || redone == 0 {
		t.Errorf("%d deliveries were repeated, %d done so, by %d kills", st.Redelivered, redone, kills)
	}
	t.Logf("%d jobs, %d deliveries repeated, %d acknowledgements came late", jobs, st.Redelivered, st.Late)
}
