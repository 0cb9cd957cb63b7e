package etcddir

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	scheme        = "etcd://"
	secureScheme  = "etcds://"
	defaultPrefix = "zfab"
)

// target is what a URL names.
type target struct {
	endpoints []string
	prefix    string // of all keys; begins and ends with a slash
	secure    bool   // with TLS
}

// errUserInURL does not have the URL, as that would tell the password.
var errUserInURL = errors.New("store: a user stands in the URL, where others can see it: put user:password into a file, and name that")

// parse reads "etcd://host:2379,host2:2379/prefix", or the same with etcds.
func parse(url string) (target, error) {
	t := target{prefix: "/" + defaultPrefix + "/"}
	rest, ok := strings.CutPrefix(url, secureScheme)
	t.secure = ok
	if !ok {
		rest, ok = strings.CutPrefix(url, scheme)
	}
	if strings.Contains(url, "@") {
		return target{}, errUserInURL // also in the prefix: a password may have a slash
	}
	if !ok {
		return target{}, fmt.Errorf("store %q: known are etcd://host:port[,host:port...][/prefix], and etcds://... for TLS", url)
	}
	hosts, prefix, _ := strings.Cut(rest, "/")
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		t.prefix = "/" + prefix + "/"
	}
	for _, endpoint := range strings.Split(hosts, ",") {
		host, port, err := net.SplitHostPort(endpoint)
		if err != nil {
			return target{}, fmt.Errorf("store %q: %w", url, err)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return target{}, fmt.Errorf("store %q: %q is no host and port", url, endpoint)
		}
		if t.secure {
			t.endpoints = append(t.endpoints, "https://"+endpoint)
		} else {
			t.endpoints = append(t.endpoints, "http://"+endpoint)
		}
	}
	return t, nil
}
