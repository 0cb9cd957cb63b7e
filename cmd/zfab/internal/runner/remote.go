package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/child"
	"github.com/zfab/zfab/cmd/zfab/internal/topology"
)

// The nodes of a remote run are processes that somebody else has started: by hand,
// on other hosts, in containers. Each dials the run's control address (Join) and
// is then like a process that was started here, but that it cannot be killed or
// paused from here. The control address's host is where the run's directory
// listens too, and the proxies of its faults, so it has to be one at which the
// members reach this process.
//
// Whoever reaches the control address can take a place in the run. It is for
// networks that are trusted.

// gatherTimeout is how long members have to come.
const gatherTimeout = 2 * time.Minute

// host is where members, and processes started here, reach this one.
func (o Options) host() string {
	if o.Kind != Remote {
		return "127.0.0.1"
	}
	host, _, _ := net.SplitHostPort(o.Control)
	return host
}

// CheckControl says what is wrong with a control address; nil if nothing is.
func CheckControl(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return fmt.Errorf("%q does not say at which address members reach this process: name one, not all of them", addr)
	}
	if port == "" {
		return fmt.Errorf("%q has no port", addr)
	}
	return nil
}

// newRemoteCluster listens for the members.
func newRemoteCluster(specs []Spec, o Options) (*processCluster, error) {
	muster, err := child.NewMuster(o.Control, o.Logger)
	if err != nil {
		return nil, &ControlError{err}
	}
	p := newProcessCluster(specs, o)
	p.muster = muster
	return p, nil
}

// A ControlError is that the control address cannot be listened at.
type ControlError struct{ Err error }

func (e *ControlError) Error() string { return "the control address: " + e.Err.Error() }
func (e *ControlError) Unwrap() error { return e.Err }

// gather waits for the members, if they are not started here, by node.
func (p *processCluster) gather(ctx context.Context) ([]*child.Process, error) {
	if p.muster == nil {
		return nil, nil
	}
	defer p.muster.Close()
	var names []string
	for _, spec := range p.specs {
		names = append(names, nameOf(spec))
	}
	if p.options.Waiting != nil {
		p.options.Waiting(p.muster.Addr().String(), len(names))
	}
	return p.muster.Gather(ctx, names)
}

// Membership says how to take part in a remote run.
type Membership struct {
	Control string        // the run's control address
	Place   int           // which of its nodes to be, from 1; 0: any
	Wait    time.Duration // how long to wait for the run
	// Attach is where a node takes workers: the member is one of them, and finds the
	// others through that node and its directory. Empty: a node of its own, in the
	// run's directory.
	Attach string
}

// Join takes part in a remote run as one of its nodes. It waits until the run is
// there, or ctx ends, and returns when the run has ended.
func Join(ctx context.Context, m Membership, logger *slog.Logger) error {
	dialling, cancel := context.WithTimeout(ctx, m.Wait)
	conn, err := child.Dial(dialling, m.Control, m.Place)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &ControlError{fmt.Errorf("nobody answers at %s: %w", m.Control, err)}
	}
	defer conn.Close()
	// Where this host reaches the run, the other members reach this host.
	here, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return err
	}
	return serve(ctx, conn, conn, where{listen: "tcp://" + net.JoinHostPort(here, "0"), attach: m.Attach}, logger)
}

// possibleFor refuses what members that were started elsewhere cannot be made to do.
func possibleFor(t *topology.Topology, kind Kind) error {
	for _, f := range t.Faults {
		if f.Kind.OfProcess() {
			return t.Refuse(f, "the %s runner has not started the nodes and cannot %s one of them: use --runner %s", kind, f.Kind, Process)
		}
	}
	if t.SideBySide {
		return errors.New("a run side by side with another needs two nodes of each member: use --runner " + string(Process))
	}
	return nil
}
