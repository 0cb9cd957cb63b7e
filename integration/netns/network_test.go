package netns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/zfab/zfab/integration/internal/process"
)

// prefix begins the names of all namespaces that the tests make; the test's
// process follows, and a number.
const prefix = "zfab-test-"

var networks atomic.Int64

// network is three namespaces with a veth pair between any two. An interface is
// called like the namespace that it leads to.
type network struct {
	id string
}

// The ends of the veth pairs, in order of their networks 10.77.n.0/30.
var pairs = [][2]string{{"n1", "n2"}, {"dir", "n1"}, {"dir", "n2"}}

// address is the one that a namespace has on its interface to another.
func address(of, to string) string {
	for n, pair := range pairs {
		for i, name := range pair {
			if name == of && pair[1-i] == to {
				return fmt.Sprintf("10.77.%d.%d", n, i+1)
			}
		}
	}
	panic("no pair of " + of + " and " + to)
}

// namespace is the name that the system has for one of ours.
func (n *network) namespace(name string) string { return n.id + "-" + name }

// newNetwork makes the namespaces, or skips the test.
func newNetwork(t *testing.T) *network {
	t.Helper()
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v (Debian: apt-get install iproute2 nftables)", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	n := &network{id: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), networks.Add(1))}
	t.Cleanup(func() { n.remove(t) })
	for _, name := range []string{"n1", "n2", "dir"} {
		if err := run("", "ip", "netns", "add", n.namespace(name)); err != nil {
			t.Skipf("no network namespace can be made here: %v", err)
		}
	}
	for _, pair := range pairs {
		a, b := pair[0], pair[1]
		if err := run("", "ip", "-n", n.namespace(a), "link", "add", b, "type", "veth", "peer", "name", a, "netns", n.namespace(b)); err != nil {
			t.Skipf("no veth pair can be made here: %v", err)
		}
		for _, end := range [][2]string{{a, b}, {b, a}} {
			n.must(t, end[0], "address", "add", address(end[0], end[1])+"/30", "dev", end[1])
			n.must(t, end[0], "link", "set", end[1], "up")
		}
	}
	if err := n.filter("n1", "add table inet probe; delete table inet probe"); err != nil {
		t.Skipf("nftables do not work here: %v", err)
	}
	return n
}

// must runs ip in a namespace.
func (n *network) must(t *testing.T, name string, args ...string) {
	t.Helper()
	if err := run("", "ip", append([]string{"-n", n.namespace(name)}, args...)...); err != nil {
		t.Fatal(err)
	}
}

// filter runs nft in a namespace.
func (n *network) filter(name, script string) error {
	return run(script, "ip", "netns", "exec", n.namespace(name), "nft", "-f", "-")
}

// drop takes away what to receives from from. It happens at the receiver: the
// sender's system must not know.
func (n *network) drop(t *testing.T, from, to string) {
	t.Helper()
	rule := fmt.Sprintf("table inet hole { chain in { type filter hook prerouting priority 0; iifname %q drop; }; }", from)
	if err := n.filter(to, rule); err != nil {
		t.Fatal(err)
	}
}

// start runs this test's program once more, as a member (member_test.go) in a
// namespace.
func (n *network) start(t *testing.T, name string, args ...string) *process.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", n.namespace(name), self}, args...)...)
	cmd.Env = append(os.Environ(), memberVariable+"=1")
	return process.Start(t, name, cmd)
}

// heal ends drop.
func (n *network) heal(t *testing.T, to string) {
	t.Helper()
	if err := n.filter(to, "delete table inet hole"); err != nil {
		t.Fatal(err)
	}
}

// remove deletes the namespaces, and with them all that is in them.
func (n *network) remove(t *testing.T) {
	for _, name := range []string{"n1", "n2", "dir"} {
		if err := run("", "ip", "netns", "delete", n.namespace(name)); err != nil && exists(n.namespace(name)) {
			t.Errorf("a namespace is left: %v", err)
		}
	}
}

func exists(namespace string) bool {
	_, err := os.Stat("/run/netns/" + namespace)
	return err == nil
}

// removeStale deletes what tests left behind that were killed.
func removeStale() {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		pid, _, _ := strings.Cut(rest, "-")
		if id, err := strconv.Atoi(pid); ours && err == nil && syscall.Kill(id, 0) == syscall.ESRCH {
			_ = run("", "ip", "netns", "delete", e.Name())
		}
	}
}

// run runs a program; its error says what that wrote.
func run(input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
