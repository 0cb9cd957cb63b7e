package compose

import (
	"os/exec"
	"strings"
	"testing"
)

// etcdImage builds the image of an etcd member.
func etcdImage(t *testing.T) {
	t.Helper()
	ctx, _ := needDocker(t)
	build := exec.CommandContext(ctx, "go", "build", "-o", "../bin/etcdmember", "./etcdmember")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	command(t, ctx, "docker", "build", "--quiet", "--tag", "zfab-etcd", "--file", "Dockerfile.etcd", "../bin")
}

// A directory and an etcd member die: jobs go on, and a worker that comes then finds
// its way.
func TestEtcdCluster(t *testing.T) {
	etcdImage(t)
	c := up(t, "etcd")
	jobs := func() int { return strings.Count(command(t, c.ctx, "docker", "logs", c.id("pull")), "\n") }
	goOn := func(after string) {
		t.Helper()
		before := jobs()
		c.await("jobs to go on "+after, func() bool { return jobs() >= before+20 })
	}
	goOn("at first")
	command(t, c.ctx, "docker", "kill", c.id("directory1"))
	command(t, c.ctx, "docker", "kill", c.id("etcd2"))
	goOn("without a directory and an etcd member")
	if said := c.do("run", "--rm", "--use-aliases", "-T", "late"); strings.Count(said, "\n") != 3 {
		t.Errorf("who comes later gets %q", said)
	}
	command(t, c.ctx, "docker", "start", c.id("etcd2"))
	command(t, c.ctx, "docker", "start", c.id("directory1"))
	c.healthy("directory1")
	command(t, c.ctx, "docker", "kill", c.id("directory2"))
	goOn("at the other directory")
}
