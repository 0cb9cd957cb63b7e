package compose

import "testing"

// `up --wait` returns as soon as all of a cluster is there, and what has health
// checks is healthy then.
func TestUpWaits(t *testing.T) {
	needWait(t)
	for file, checked := range map[string][]string{
		"exchange": {"directory", "h1", "h2", "h3", "h4"},
		"etcd":     {"directory1", "directory2"},
		"tour":     {"directory"},
	} {
		t.Run(file, func(t *testing.T) {
			if file == "etcd" {
				etcdImage(t)
			}
			c := up(t, file, "--wait")
			for _, service := range checked {
				if is := c.inspect(service, "{{.State.Health.Status}}"); is != "healthy" {
					t.Errorf("%s is %s", service, is)
				}
			}
		})
	}
}
