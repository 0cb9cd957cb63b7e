package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zfab/zfab/cmd/zfab/internal/topology"
	"github.com/zfab/zfab/fabric/directory"
)

// An embeddedCluster has all nodes in this process. They share a registry and
// are linked over TCP on loopback as separate ones would be.
type embeddedCluster struct {
	specs    []Spec
	registry *directory.Registry
	logger   *slog.Logger

	mu      sync.Mutex
	members []*member // in no order
}

func newEmbeddedCluster(specs []Spec, o Options) *embeddedCluster {
	return &embeddedCluster{specs: specs, registry: directory.NewRegistry(), logger: o.Logger}
}

// open opens all nodes at once: each waits for the consumers of the others.
func (e *embeddedCluster) open(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, len(e.specs))
	for i, spec := range e.specs {
		all.Go(func() {
			m, err := openMember(ctx, spec, where{}, e.registry, e.logger)
			if err != nil {
				errs[i] = err
				cancel() // the others would wait in vain
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.members = append(e.members, m)
		})
	}
	all.Wait()
	return firstCause(errs)
}

// firstCause is the error that made the others end, if one can be told from
// them.
func firstCause(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

func (e *embeddedCluster) start(at time.Time) {
	for _, m := range e.members {
		m.clock = clock{at}
	}
}

func (e *embeddedCluster) run(ctx context.Context) ([]Result, []string) {
	var all sync.WaitGroup
	results := make([]Result, len(e.members))
	for i, m := range e.members {
		all.Go(func() {
			if m.clock.until(ctx, 0) {
				results[i] = m.run(ctx)
			}
		})
	}
	all.Wait()
	// One process has one memory, whoever looked.
	peak := uint64(0)
	for i := range results {
		peak, results[i].Memory = max(peak, results[i].Memory), 0
	}
	results[0].Memory = peak
	return results, nil
}

func (e *embeddedCluster) received() uint64 {
	n := uint64(0)
	for _, m := range e.members {
		n += m.received()
	}
	return n
}

func (e *embeddedCluster) answer(ctx context.Context, node int, q question) (*sight, error) {
	for _, m := range e.members {
		if m.spec.Node == node {
			return m.answer(ctx, q)
		}
	}
	return nil, fmt.Errorf("no node %s", topology.NodeName(node))
}

func (e *embeddedCluster) directory() directory.Service { return e.registry }

func (e *embeddedCluster) sockets() (int, bool) { return 0, false }

func (e *embeddedCluster) close() error {
	var all sync.WaitGroup
	for _, m := range e.members {
		all.Go(func() { m.close() })
	}
	all.Wait()
	return e.registry.Close()
}
