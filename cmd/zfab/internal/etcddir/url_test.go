package etcddir

import (
	"fmt"
	"strings"
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
		"etcds://a:1,[::1]:2":  "[https://a:1 https://[::1]:2] /zfab/",
		"etcds://a:1/x":        "[https://a:1] /x/",
		"etcds://a":            "",
		"etcdss://a:1":         "",
		"https://a:1":          "",
	} {
		got, err := parse(url)
		if text := fmt.Sprint(got.endpoints, " ", got.prefix); (err == nil) != (want != "") || err == nil && text != want {
			t.Errorf("%s: %s, %v; want %s", url, text, err, want)
		}
	}
}

// What stands in a URL that should not is not said again.
func TestPasswordInURL(t *testing.T) {
	for _, url := range []string{"etcd://root:secret@a:1", "etcds://root:secret@a:1/x", "root:secret@a:1"} {
		if _, err := parse(url); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "put user:password into a file") {
			t.Errorf("%s: %v", url, err)
		}
	}
}
