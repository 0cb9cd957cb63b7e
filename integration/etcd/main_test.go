package etcd

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// memberVariable in the environment makes the test's program a member of a
// cluster.
const memberVariable = "ZFAB_ETCD_MEMBER"

// patience is how long a test waits for what must happen.
const patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(memberVariable) != "" {
		if err := member(os.Args[1:]); err != nil {
			fmt.Printf("fault %v\n", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// member is an etcd server:
//
//	NAME DIRECTORY CLIENT-URL PEER-URL CLUSTER [CERT KEY CA]
//
// With a certificate it asks its clients for one, too. It says "ready", and ends with its standard input.
func member(args []string) error {
	if len(args) != 5 && len(args) != 8 {
		return fmt.Errorf("no such member: %q", args)
	}
	client, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	peer, err := url.Parse(args[3])
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = args[0], args[1], args[4]
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.BcryptCost = 4 // the least: passwords of tests are no secrets
	if len(args) == 8 {
		security := &cfg.ClientTLSInfo
		security.CertFile, security.KeyFile, security.TrustedCAFile, security.ClientCertAuth = args[5], args[6], args[7], true
	}
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	go func() {
		select {
		case <-server.Server.ReadyNotify():
			fmt.Println("ready")
		case <-server.Server.StopNotify():
		}
	}()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case err := <-server.Err():
		return err
	}
}

// build makes the zfab command, once.
var build = sync.OnceValues(func() (program string, failure error) {
	dir, err := os.MkdirTemp("", "zfab-etcd-")
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "zfab")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/zfab")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return program, fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

var built string // the directory to remove

func zfab(t testing.TB) string {
	t.Helper()
	program, err := build()
	built = filepath.Dir(program)
	if err != nil {
		t.Fatal(err)
	}
	return program
}
