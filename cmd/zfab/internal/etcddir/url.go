package etcddir

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	scheme        = "etcd://"
	defaultPrefix = "zfab"
)

// target is what a URL names.
type target struct {
	endpoints []string
	prefix    string // of all keys; begins and ends with a slash
}

// parse reads "etcd://host:2379,host2:2379/prefix".
func parse(url string) (target, error) {
	rest, ok := strings.CutPrefix(url, scheme)
	if !ok {
		return target{}, fmt.Errorf("store %q: known are etcd://host:port[,host:port...][/prefix]", url)
	}
	hosts, prefix, _ := strings.Cut(rest, "/")
	t := target{prefix: "/" + defaultPrefix + "/"}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		t.prefix = "/" + prefix + "/"
	}
	for _, endpoint := range strings.Split(hosts, ",") {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil {
			return target{}, fmt.Errorf("store %q: %w", url, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.Contains(host, "@") {
			return target{}, fmt.Errorf("store %q: %q is no host and port", url, endpoint)
		}
		t.endpoints = append(t.endpoints, "http://"+endpoint)
	}
	return t, nil
}
