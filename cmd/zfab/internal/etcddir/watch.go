package etcddir

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/zfab/zfab/fabric/directory"
)

const (
	// progressAfter is how long the event may take that brings a revision, before progress is asked for; and
	// progressAgain how long the answer to that, before it is asked for once more.
	progressAfter = 10 * time.Millisecond
	progressAgain = 100 * time.Millisecond
	// hangs is how long a watch may say nothing although it is late: then its member hangs or is cut off, and the next
	// watch begins at another one.
	hangs = 700 * time.Millisecond
)

// watchNumber is a header that makes every watch one of its own for etcd's client, which would have a later one share the
// stream of an earlier one, and its member.
const watchNumber = "zfab-watch"

var (
	errWatchEnded = errors.New("the watch has ended")
	errWatchHangs = errors.New("the watch says nothing")
)

// Watch implements directory.Shared. One at a time.
func (s *Store) Watch(ctx context.Context, after uint64, told func(directory.SharedUpdate)) error {
	member := s.inUse()
	err := s.watch(ctx, after, told)
	if ctx.Err() == nil && !errors.Is(err, directory.ErrCompacted) {
		s.giveUp(member)
	}
	return err
}

func (s *Store) watch(ctx context.Context, after uint64, told func(directory.SharedUpdate)) error {
	s.watches++
	ctx = metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), watchNumber, strconv.FormatUint(s.watches, 10))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begins := time.AfterFunc(hangs, cancel) // the client waits for the member's word that the watch has begun
	events := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1))
	if !begins.Stop() {
		return errWatchHangs
	}
	var late time.Time        // since when somebody has waited and it has said nothing; zero: nobody does
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
			late = time.Time{}
			timer.Reset(progressAgain)
		case <-s.asked:
			if late.IsZero() && s.late(after) { // else the timer runs already
				late = time.Now()
				timer.Reset(progressAfter)
			}
		case <-timer.C:
			switch {
			case !s.late(after):
				late = time.Time{}
				continue
			case late.IsZero():
				late = time.Now()
			case time.Since(late) > hangs:
				return errWatchHangs
			}
			s.askProgress(ctx)
			timer.Reset(progressAgain)
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
