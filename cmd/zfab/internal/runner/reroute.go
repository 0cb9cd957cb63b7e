package runner

import (
	"context"

	"github.com/zfab/zfab/fabric/directory"
)

// reroute is the directory as one node sees it whose links go through proxies:
// its peers are where via says by their names, and everybody else is where the
// directory says. The node registers its own address, which the proxies dial.
func reroute(dir directory.Service, via map[string]string) directory.Service {
	if len(via) == 0 {
		return dir
	}
	return &rerouted{Service: dir, via: via}
}

type rerouted struct {
	directory.Service
	via map[string]string
}

func (r *rerouted) place(info directory.NodeInfo) directory.NodeInfo {
	if endpoint, ok := r.via[info.Name]; ok {
		info.Endpoint = endpoint
	}
	return info
}

func (r *rerouted) Node(ctx context.Context, name string) (directory.NodeInfo, error) {
	info, err := r.Service.Node(ctx, name)
	return r.place(info), err
}

func (r *rerouted) Nodes(ctx context.Context) ([]directory.NodeInfo, error) {
	all, err := r.Service.Nodes(ctx)
	for i := range all {
		all[i] = r.place(all[i])
	}
	return all, err
}

func (r *rerouted) Watch(ctx context.Context, channel string) (directory.Watcher, error) {
	w, err := r.Service.Watch(ctx, channel)
	if err != nil {
		return nil, err
	}
	return reroutedWatcher{w, r}, nil
}

type reroutedWatcher struct {
	directory.Watcher
	r *rerouted
}

func (w reroutedWatcher) Next(ctx context.Context) (directory.Event, error) {
	e, err := w.Watcher.Next(ctx)
	e.Node = w.r.place(e.Node)
	return e, err
}
