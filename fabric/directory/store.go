package directory

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Store keeps a Registry's table over restarts: an ordered map of bytes, which it need not understand. The zfab
// command's data directory is one. A Registry calls one method at a time.
type Store interface {
	// Load gives everything that was saved, in any order; what it gives is valid until each returns. It ends with
	// each's error.
	Load(each func(key, value []byte) error) error
	// Save makes changes last, in their order: once it has returned they outlive the process and the machine's power,
	// all of them; with an error, none. The Registry then gives up, see Registry.Done.
	Save(changes []Change) error
}

// Change is one entry of a Store that is to be set or, with a nil value, to be removed.
type Change struct{ Key, Value []byte }

// ErrStore matches *StoreError.
var ErrStore = errors.New("directory: store")

// StoreError: the store did not take a change, or what it kept is not what a Registry saved.
type StoreError struct{ Err error }

func (e *StoreError) Error() string        { return fmt.Sprintf("directory: store: %v", e.Err) }
func (e *StoreError) Is(target error) bool { return target == ErrStore }
func (e *StoreError) Unwrap() error        { return e.Err }

// journal takes a table's changes to its store. Who wants a change to last waits for it, and the first who waits saves
// what all of them have changed: so the store is written once for many callers, and no goroutine is needed.
//
// It queues what is changed during one Save: at most a request of every connection.
type journal struct {
	store Store // immutable

	mu      sync.Mutex
	pending []change
	mark    mark          // of the table with all that is pending
	put     uint64        // changes ever put here
	kept    uint64        // of these, the store has
	saving  bool          // somebody does
	saved   chan struct{} // closed when that ends
	err     error         // the store failed, and nothing is saved any more
}

func newJournal(store Store) *journal { return &journal{store: store, saved: make(chan struct{})} }

// append takes changes over, with the mark of the table that has them, and returns what to wait for.
func (j *journal) append(changes []change, m mark) (ticket uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(changes) > 0 {
		j.pending = append(j.pending, changes...)
		j.put += uint64(len(changes))
		j.mark = m
	}
	return j.put
}

// wait returns when the store has everything up to the ticket, or cannot have it.
func (j *journal) wait(ctx context.Context, ticket uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.kept < ticket && j.err == nil {
		if !j.saving {
			j.save()
			continue
		}
		saved := j.saved
		j.mu.Unlock()
		var err error
		select {
		case <-saved:
		case <-ctx.Done():
			err = ctx.Err()
		}
		j.mu.Lock()
		if err != nil {
			return err
		}
	}
	return j.err
}

// save hands all that is pending to the store. Under mu, which it gives up meanwhile.
func (j *journal) save() {
	batch, m, put := j.pending, j.mark, j.put
	j.pending, j.saving = nil, true
	j.mu.Unlock()
	changes := make([]Change, 0, len(batch)+1)
	for i := range batch {
		changes = append(changes, batch[i].encode())
	}
	err := j.store.Save(append(changes, m.encode()))
	j.mu.Lock()
	j.saving = false
	if err != nil {
		j.err = &StoreError{err}
	} else {
		j.kept = put
	}
	close(j.saved)
	j.saved = make(chan struct{})
}
