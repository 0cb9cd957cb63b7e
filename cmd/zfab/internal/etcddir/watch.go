package etcddir

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zfab/zfab/fabric/directory"
)

const (
	// progressAfter is how long the event may take that brings a revision, before progress is asked for; and
	// progressAgain how long the answer to that, before it is asked for once more.
	progressAfter = 10 * time.Millisecond
	progressAgain = 100 * time.Millisecond
)

var errWatchEnded = errors.New("the watch has ended")

// Watch implements directory.Shared. One at a time.
func (s *Store) Watch(ctx context.Context, after uint64, told func(directory.SharedUpdate)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1))
	timer := time.NewTimer(0) // it begins with a look at what is wanted
	defer timer.Stop()
	for {
		select {
		case r, ok := <-events:
			switch err := r.Err(); {
			case !ok && ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, rpctypes.ErrCompacted):
				return directory.ErrCompacted
			case err != nil:
				return err
			case !ok:
				return errWatchEnded
			}
			for _, u := range s.updates(r) {
				told(u)
				after = u.Revision
			}
		case <-s.asked:
			if s.late(after) {
				timer.Reset(progressAfter)
			}
		case <-timer.C:
			if s.late(after) {
				s.askProgress(ctx)
				timer.Reset(progressAgain)
			}
		}
	}
}

// late reports whether somebody waits for more than was told.
func (s *Store) late(after uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted > after
}

// askProgress has the cluster say how far the watch is. If it cannot now, it is asked again.
func (s *Store) askProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, progressAgain)
	defer cancel()
	_ = s.client.RequestProgress(ctx)
}

// updates parts what a watch says into revisions. Only an answer without events tells by its header how far it is: one
// with events may have more behind it.
func (s *Store) updates(r clientv3.WatchResponse) (list []directory.SharedUpdate) {
	if r.IsProgressNotify() {
		return []directory.SharedUpdate{{Revision: uint64(r.Header.Revision)}}
	}
	for _, event := range r.Events {
		revision := uint64(event.Kv.ModRevision)
		if len(list) == 0 || list[len(list)-1].Revision != revision {
			list = append(list, directory.SharedUpdate{Revision: revision})
		}
		e := s.entry(event.Kv)
		if event.Type == clientv3.EventTypeDelete {
			e.Value, e.Lease = nil, 0
		}
		u := &list[len(list)-1]
		u.Changes = append(u.Changes, e)
	}
	return list
}
