package fabric

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zfab/zfab/fabric/directory"
	"github.com/zfab/zfab/fabric/internal/flow"
	"github.com/zfab/zfab/fabric/internal/link"
	"github.com/zfab/zfab/fabric/internal/transport"
	"github.com/zfab/zfab/fabric/internal/wire"
)

// Node is one member of the fabric. Its methods may be called by several
// goroutines.
//
// It owns these goroutines: accept, one admit per connection that says hello,
// tick, one watch per channel, one dial per peer that is wanted and down, and
// through its links a reader and a writer per connection. One that takes workers
// also has acceptWorkers, greetWorker or relay and deliver for each connection of
// theirs, an uplink's read and tend, evict for each that has died, and passOn for each peer
// that their circuits wait for; a worker has keepAttached. Close waits for all.
type Node struct {
	cfg         Config
	incarnation uint64
	dir         directory.Service
	ownDir      bool
	listener    *transport.Listener // nil in a worker
	endpoint    string
	workers     *workers // nil unless the node takes any
	trunk       *trunk   // nil unless this is a worker
	links       link.Config
	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	wg          sync.WaitGroup
	unfinished  atomic.Bool // a producer has left without telling its consumers
	left        atomic.Bool // the directory was told that the node leaves

	mu        sync.Mutex
	peers     map[string]*peer
	self      *link.Link // the producers' side of the link to itself, nil until used
	selfIn    *link.Link // and the consumers'
	channels  map[string]*channel
	greeting  []link.Conn // that have said no hello yet, oldest first
	draining  bool        // no producer or consumer may be made
	closed    bool
	deaf      bool             // no connection is heard any more
	orderly   bool             // with owed: nothing that was accepted is missing, but what owed says
	owed      map[string]uint8 // peers that have not confirmed the node's bye, and its code; nil before it is said
	parted    chan struct{}    // closed when it was said wherever there was a link
	greetings sync.WaitGroup   // connections without a link yet, which hear goodbye; none begins once deaf and closed
	settled   chan struct{}    // closed when there are none; nil unless somebody waits
}

// Open makes a node, which then listens and is registered. It ends when ctx
// does. errors.Is(err, directory.ErrNameTaken) tells that another node has the
// name, directory.ErrUnavailable that the directory cannot be reached.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("fabric: open node: %w", err)
	}
	n := newNode(cfg)
	if n.dir == nil {
		n.dir, n.ownDir = directory.NewRegistry(), true
	}
	if err := n.open(ctx); err != nil {
		n.cancel()
		return nil, fmt.Errorf("fabric: node %s: %w", cfg.Name, err)
	}
	n.start()
	return n, nil
}

// newNode makes a node that is not known to anybody yet.
func newNode(cfg Config) *Node {
	n := &Node{
		cfg: cfg, dir: cfg.Directory,
		peers: make(map[string]*peer), channels: make(map[string]*channel), parted: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	mark, _ := HighWaterMark{}.mark()
	n.links = link.Config{
		Node: cfg.Name, MaxMessage: cfg.MaxMessage, MaxStreams: link.DefaultMaxStreams, Mark: mark,
		Budget:    flow.NewBudget(cfg.MemoryBudget),
		PingTicks: 2, DeadTicks: int(cfg.HeartbeatTimeout/cfg.HeartbeatInterval) - 1,
		ResumeTicks:  int(cfg.ResumeWindow / cfg.HeartbeatInterval),
		Logger:       cfg.Logger,
		CheckChannel: func(name string) error { return directory.CheckName("channel", name) },
		Hooks:        link.Hooks{Opened: n.opened, Failed: n.failed, Ended: n.ended, Down: n.down, Called: n.called, Cut: cutLink},
	}
	return n
}

// open makes the node listen, and registers it.
func (n *Node) open(ctx context.Context) (err error) {
	n.listener, err = transport.Listen(n.cfg.Listen, transport.Config{
		SocketType: transport.Dealer, Accepts: []transport.SocketType{transport.Router},
		Identity: n.cfg.Name, MaxFrame: wire.MaxPacket, UserTimeout: n.cfg.userTimeout(), Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.endpoint = n.listener.Addr()
	if n.cfg.Workers.Listen != "" {
		if n.workers, err = n.openWorkers(ctx); err != nil {
			n.listener.Close()
			return err
		}
	}
	n.incarnation, err = n.dir.Join(ctx, directory.NodeInfo{Name: n.cfg.Name, Endpoint: n.endpoint})
	if err != nil {
		n.listener.Close()
		if n.workers != nil {
			n.workers.hangUp()
		}
	}
	return err
}

// start begins the node's own work.
func (n *Node) start() {
	n.wg.Add(1)
	go n.tick()
	if n.listener != nil {
		n.wg.Add(1)
		go n.accept()
	}
	if n.workers != nil {
		n.wg.Add(1)
		go n.acceptWorkers()
	}
	if n.trunk != nil {
		n.wg.Add(1)
		go n.keepAttached()
	}
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Incarnation tells this life of the node from others of the same name; a later
// one's is greater.
func (n *Node) Incarnation() uint64 { return n.incarnation }

// Endpoint is the address that other nodes dial; that of a worker is "via:" and
// the name of its node.
func (n *Node) Endpoint() string { return n.endpoint }

// Directory is where the node is registered.
func (n *Node) Directory() directory.Service { return n.dir }

// tick looks after all links at every heartbeat interval.
func (n *Node) tick() {
	defer n.wg.Done()
	ticker := time.NewTicker(n.cfg.HeartbeatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		}
		n.mu.Lock()
		links := n.allLinks()
		expired := n.expired()
		n.mu.Unlock()
		for _, l := range links {
			l.Tick()
		}
		for _, e := range expired {
			n.lose(e.peer, e.loss)
			n.free(e.peer)
		}
	}
}

// allLinks is every link there is. Under mu.
func (n *Node) allLinks() []*link.Link {
	list := make([]*link.Link, 0, len(n.peers)+2)
	for _, p := range n.peers {
		list = append(list, p.link)
	}
	if n.self != nil {
		list = append(list, n.self, n.selfIn)
	}
	return list
}

// allChannels is every channel that is in use here. Under mu.
func (n *Node) allChannels() []*channel {
	return slices.Collect(maps.Values(n.channels))
}
