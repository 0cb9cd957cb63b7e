package main

import (
	"fmt"
	"testing"
)

func TestAProcessIsStartedOnTheCPUThatIsAskedFor(t *testing.T) {
	p, err := startProcess(t.Context(), []string{"sh", "-c", "grep Cpus_allowed_list: /proc/self/status"}, ourCPUs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if got, err := p.line(t.Context(), "Cpus_allowed_list:"); err != nil || got != fmt.Sprintf("Cpus_allowed_list:\t%d", ourCPUs[0]) {
		t.Errorf("%q, %v; want CPU %d alone", got, err, ourCPUs[0])
	}
}
