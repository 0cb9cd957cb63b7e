package directory

import (
	"maps"
	"slices"
)

// maxCache bounds the endpoints that are remembered for when the directory cannot be reached.
const maxCache = 1 << 16

// remember keeps nodes for when the directory cannot be reached.
func (c *Client) remember(infos ...NodeInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, info := range infos {
		if len(c.cache) >= maxCache {
			for name := range c.cache {
				delete(c.cache, name)
				break
			}
		}
		c.cache[info.Name] = info
	}
}

func (c *Client) recall(name string) (NodeInfo, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, ok := c.cache[name]
	return info, ok
}

func (c *Client) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cache, name)
}

// watched lists a channel as a watcher of it knows it.
func (c *Client) watched(channel string) ([]Member, bool) {
	c.mu.Lock()
	watchers := slices.Collect(maps.Keys(c.watchers))
	c.mu.Unlock()
	for _, w := range watchers {
		if w.channel == channel {
			if list, ok := w.members(); ok {
				return list, true
			}
		}
	}
	return nil, false
}
