package etcddir

import (
	"fmt"
	"testing"
)

func TestParse(t *testing.T) {
	for url, want := range map[string]string{
		"etcd://a:1":           "[http://a:1] /zfab/",
		"etcd://a:1/":          "[http://a:1] /zfab/",
		"etcd://a:1,b:2,c:3":   "[http://a:1 http://b:2 http://c:3] /zfab/",
		"etcd://[::1]:1/x":     "[http://[::1]:1] /x/",
		"etcd://a:1/x/y/":      "[http://a:1] /x/y/",
		"http://a:1":           "",
		"etcd://":              "",
		"etcd://a":             "",
		"etcd://a:1,":          "",
		"etcd://:1":            "",
		"etcd://a:70000":       "",
		"etcd://a:b/x":         "",
		"etcd://user@host:1/x": "",
	} {
		got, err := parse(url)
		if text := fmt.Sprint(got.endpoints, " ", got.prefix); (err == nil) != (want != "") || err == nil && text != want {
			t.Errorf("%s: %s, %v; want %s", url, text, err, want)
		}
	}
}
