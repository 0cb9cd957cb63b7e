package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zfab/zfab/integration/internal/process"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// build makes the plain program, once.
var build = sync.OnceValues(func() (program string, failure error) {
	dir, err := os.MkdirTemp("", "zfab-interop-")
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "plain")
	if out, err := exec.Command("go", "build", "-tags", "libzmq", "-o", program, "./plain").CombinedOutput(); err != nil {
		return program, fmt.Errorf("%w: %s", err, out)
	}
	return program, nil
})

var built string // the directory to remove

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// missing is what this machine lacks to build with libzmq, "" if nothing.
func missing() string {
	env, err := exec.Command("go", "env", "CC", "CGO_ENABLED").Output()
	if err != nil {
		return "no go command"
	}
	compiler, enabled, _ := strings.Cut(strings.TrimSpace(string(env)), "\n")
	name, _, _ := strings.Cut(compiler, " ")
	if _, err := exec.LookPath(name); err != nil || enabled != "1" {
		return "no C compiler, or cgo is off"
	}
	if err := exec.Command("pkg-config", "--exists", "libzmq").Run(); err != nil {
		return "no libzmq with headers and pkg-config (Debian: apt-get install libzmq3-dev pkg-config)"
	}
	return ""
}

// start runs the plain program.
func start(t *testing.T, args ...string) *process.Process {
	t.Helper()
	if lack := missing(); lack != "" {
		t.Skip(lack)
	}
	program, err := build()
	built = filepath.Dir(program)
	if err != nil {
		t.Fatal(err)
	}
	return process.Start(t, "plain "+args[0], exec.Command(program, args...))
}
