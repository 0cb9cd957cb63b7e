package etcddir

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/zfab/zfab/fabric/directory"
)

const (
	// attempt is how long one try at something takes at most; a request has four times that.
	attempt = 500 * time.Millisecond
	// writeAttempt is the same for what waits until a majority has written to its disks.
	writeAttempt = 2 * attempt
	// attemptPause is the time between two tries of which the first failed at once.
	attemptPause = 20 * time.Millisecond
	// deniedPause is the least time from one denial to the next question of the same kind.
	deniedPause = time.Second
	// keepAlive and keepAliveTimeout are how soon a connection is closed whose other end says nothing. The first is the
	// least that gRPC allows.
	keepAlive        = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
	// pageLen is how many keys are read at once: some hundred KiB.
	pageLen = 4096
)

// Store is a part of an etcd cluster that directories share. It is a directory.Shared.
type Store struct {
	// immutable
	name      string
	prefix    string
	endpoints []string
	client    *clientv3.Client
	leases    pb.LeaseClient
	asked     chan struct{} // room for one: somebody waits for the watch to say how far it is

	watches uint64 // Watch's: how many there were

	mu     sync.Mutex
	member int    // the endpoint in use
	wanted uint64 // the greatest revision that was returned
}

// Open names a store: "etcd://host:port,host:port/prefix", by some or all of the cluster's members, or etcds with TLS. It
// does not wait for any of them. A URL that is none is an error, and so is access that makes no sense; a *FileError is
// that of a file.
func Open(url string, access Access) (*Store, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	cfg := clientv3.Config{
		Endpoints:            t.endpoints[:1],
		Logger:               zap.NewNop(), // what it would say the directory says
		MaxUnaryRetries:      1,            // try does it, and knows why the last one failed
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
	}
	if t.secure {
		if cfg.TLS, err = access.tls(); err != nil {
			return nil, err
		}
	} else if access.CA != "" || access.Cert != "" || access.Key != "" || access.ServerName != "" {
		return nil, fmt.Errorf("store %s is spoken to without TLS, and so without certificates: %s... is with it", url, secureScheme)
	}
	if access.User != "" {
		if cfg.Username, cfg.Password, err = userOf(access.User); err != nil {
			return nil, fmt.Errorf("the store's user: %w", err)
		}
	}
	token := &tokens{wanted: access.User != ""}
	token.opening.Store(true)
	cfg.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(token.intercept, sayWhy)}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", url, err)
	}
	token.opening.Store(false)
	return &Store{
		name:      url,
		prefix:    t.prefix,
		endpoints: t.endpoints,
		client:    client,
		leases:    pb.NewLeaseClient(client.ActiveConnection()),
		asked:     make(chan struct{}, 1),
	}, nil
}

// tokens has etcd's client ask for a token when the first call is made, and not before: it would do that while it is made
// itself, and wait for a member that may not be there. Nor does it wait for a member to want one: to one that has asked for
// a certificate, a call without token is one of the certificate's name.
type tokens struct {
	wanted  bool        // there is a user
	opening atomic.Bool // the client is being made
	asked   atomic.Bool // a member has given one, or wants none
}

func (t *tokens) intercept(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	authenticates := method == pb.Auth_Authenticate_FullMethodName
	switch {
	case t.opening.Load():
		return rpctypes.ErrGRPCAuthNotEnabled
	case t.wanted && !authenticates && !t.asked.Load():
		return rpctypes.ErrGRPCUserEmpty // it asks for one then
	}
	err := call(ctx, method, request, reply, conn, opts...)
	if authenticates && (err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled)) {
		t.asked.Store(true)
	}
	return err
}

// unauthenticated reports whether nothing was done for want of a token, or of another one: etcd's client has got that by
// now.
func unauthenticated(err error) bool {
	return errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// denied reports whether no member would answer otherwise.
func denied(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrPermissionDenied)
}

// sayWhy has a call fail if there is no connection, with the reason: etcd's client would wait for one, and then say only
// that the time is over.
func sayWhy(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return call(ctx, method, request, reply, conn, append(opts, grpc.WaitForReady(false))...)
}

// Close ends the connections.
func (s *Store) Close() error { return s.client.Close() }

// inUse is the member that is asked now: one at a time. All would do, and the client could ask them in turn, but of three of
// which one hangs every third question would hang.
func (s *Store) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.member
}

// giveUp has the next member asked, unless one is already.
func (s *Store) giveUp(member int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.member == member && len(s.endpoints) > 1 {
		s.member = (member + 1) % len(s.endpoints)
		s.client.SetEndpoints(s.endpoints[s.member])
	}
}

// String implements directory.Shared.
func (s *Store) String() string { return s.name }

// Read implements directory.Shared.
func (s *Store) Read(ctx context.Context, each func(directory.SharedEntry) error) (uint64, error) {
	end := clientv3.GetPrefixRangeEnd(s.prefix)
	var revision int64
	for from := s.prefix; ; {
		var r *clientv3.GetResponse
		err := s.try(ctx, attempt, func(ctx context.Context) (err error) {
			r, err = s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageLen), clientv3.WithRev(revision))
			return err
		})
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			if err := each(s.entry(kv)); err != nil {
				return 0, err
			}
		}
		if !r.More {
			return uint64(revision), nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// entry is a key as the directory knows it.
func (s *Store) entry(kv *mvccpb.KeyValue) directory.SharedEntry {
	e := directory.SharedEntry{Key: string(kv.Key[len(s.prefix):]), Lease: kv.Lease, Revision: uint64(kv.ModRevision)}
	e.Value = append([]byte{}, kv.Value...) // one that is empty is there
	return e
}

// Revision implements directory.Shared.
func (s *Store) Revision(ctx context.Context) (uint64, error) {
	var revision uint64
	err := s.try(ctx, attempt, func(ctx context.Context) error {
		r, err := s.client.Get(ctx, s.prefix, clientv3.WithCountOnly())
		if err == nil {
			revision = uint64(r.Header.Revision)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	s.want(revision)
	return revision, nil
}

// want notes that somebody waits until the watch has told a revision.
func (s *Store) want(revision uint64) {
	s.mu.Lock()
	s.wanted = max(s.wanted, revision)
	s.mu.Unlock()
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// try does something that may be done twice, until it is done or ctx ends: then the error is the last one that says more
// than that. No attempt takes longer than the limit.
func (s *Store) try(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	var cause error
	for {
		member := s.inUse()
		one, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), limit)
		err := do(one)
		cancel()
		switch {
		case err == nil:
			return nil
		case denied(err): // who asks again does so at once, and each time costs the store a check of the password
			pause(ctx, deniedPause)
			return err
		}
		if !unauthenticated(err) {
			s.giveUp(member)
		}
		if cause == nil || !errors.Is(err, context.DeadlineExceeded) {
			cause = err
		}
		if !pause(ctx, attemptPause) {
			return cause
		}
	}
}

// pause waits for d, and reports false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Commit implements directory.Shared. It is tried once, but for want of a token: of an attempt without an answer only the
// directory knows what it would mean a second time.
func (s *Store) Commit(ctx context.Context, t directory.SharedTransaction) (uint64, bool, error) {
	conditions := make([]clientv3.Cmp, len(t.If))
	for i, c := range t.If {
		conditions[i] = clientv3.Compare(clientv3.ModRevision(s.prefix+c.Key), "=", int64(c.Revision))
	}
	changes := make([]clientv3.Op, len(t.Then))
	for i, c := range t.Then {
		switch {
		case c.Value != nil && c.Lease != 0:
			changes[i] = clientv3.OpPut(s.prefix+c.Key, string(c.Value), clientv3.WithLease(clientv3.LeaseID(c.Lease)))
		case c.Value != nil:
			changes[i] = clientv3.OpPut(s.prefix+c.Key, string(c.Value))
		case c.Prefix:
			changes[i] = clientv3.OpDelete(s.prefix+c.Key, clientv3.WithPrefix())
		default:
			changes[i] = clientv3.OpDelete(s.prefix + c.Key)
		}
	}
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), writeAttempt)
	defer cancel()
	member := s.inUse()
	commit := func() (*clientv3.TxnResponse, error) {
		return s.client.Txn(ctx).If(conditions...).Then(changes...).Commit()
	}
	r, err := commit()
	if unauthenticated(err) {
		r, err = commit()
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return 0, false, directory.ErrLeaseOver
	case err != nil:
		s.giveUp(member)
		return 0, false, err
	}
	s.want(uint64(r.Header.Revision))
	return uint64(r.Header.Revision), r.Succeeded, nil
}

// Grant implements directory.Shared. A lease that is granted without an answer ends by itself.
func (s *Store) Grant(ctx context.Context, atLeast time.Duration) (lease int64, err error) {
	seconds := int64((atLeast + time.Second - 1) / time.Second)
	err = s.try(ctx, writeAttempt, func(ctx context.Context) error {
		r, err := s.client.Grant(ctx, seconds)
		if err == nil {
			lease = int64(r.ID)
		}
		return err
	})
	return lease, err
}

// Renew implements directory.Shared.
func (s *Store) Renew(ctx context.Context, leases []int64) (over []int64, err error) {
	if len(leases) == 0 {
		return nil, nil
	}
	// A lease that has just ended is answered once its entries are removed, by a write.
	err = s.try(ctx, writeAttempt, func(ctx context.Context) error {
		over, err = s.renew(ctx, leases)
		return err
	})
	return over, err
}

// renewAhead is how many renewals are under way at once on a stream: it must not fill while nobody reads the answers.
const renewAhead = 64

// renew makes one stream for all of the leases. The answers come in the requests' order.
func (s *Store) renew(ctx context.Context, leases []int64) (over []int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.leases.LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(leases, renewAhead) {
		for _, lease := range part {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
				return nil, rpctypes.Error(err)
			}
		}
		for range part {
			r, err := stream.Recv()
			if err != nil {
				return nil, rpctypes.Error(err)
			}
			if r.TTL <= 0 {
				over = append(over, r.ID)
			}
		}
	}
	return over, nil
}

// Revoke implements directory.Shared.
func (s *Store) Revoke(ctx context.Context, lease int64) error {
	return s.try(ctx, writeAttempt, func(ctx context.Context) error {
		_, err := s.client.Revoke(ctx, clientv3.LeaseID(lease))
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
}
