package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// In the scripts `zfab` is this test binary, which then is the command: also
// where the command starts itself again for a node.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"zfab": main, "zfab-worker": workerMain})
}

// TestScripts runs testdata/cli: what a user types, what the command answers on
// which stream, and its exit code (`exits CODE zfab ...`).
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join(root, "testdata", "cli"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TOPOLOGIES", filepath.Join(root, "testdata", "topologies"))
			e.Setenv("ROOT", root)
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "race" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return raceEnabled, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"json":  jsonHolds,

			"register":   register,
			"abandon":    abandon,
			"eventually": eventually,
			"truncate":   truncate,
		},
	})
}
