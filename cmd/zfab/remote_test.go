package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/zfab/zfab/cmd/zfab/internal/report"
)

const remoteTopology = `zfab: v1
name: remote
nodes: {count: 3}
channels:
  scores: {pattern: exchange, producers: 2, consumers: 2}
load: {channel: scores, messages: 2000, size: 64B, rate: 4000}
faults:
  - {at: 100ms, cut: n1-n2}
expect:
  - lost == 0
  - duplicated == 0
  - reordered == 0
  - corrupted == 0
  - links == 3
`

// startRemote starts a run that waits for members, and returns what it answers,
// once it has ended, and where it waits.
func startRemote(t *testing.T, topology string) (control string, answer func() (stdout, stderr string, code int)) {
	t.Helper()
	parent := exec.Command("zfab", "run", "--runner", "remote", "--control", "127.0.0.1:0", "--env", "TOPOLOGY", "--format", "json")
	parent.Env = append(os.Environ(), "TOPOLOGY="+topology)
	var stdout bytes.Buffer
	parent.Stdout = &stdout
	stderr, err := parent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Process.Kill(); parent.Wait() })
	lines := bufio.NewReader(stderr)
	first, err := lines.ReadString('\n')
	_, control, found := strings.Cut(strings.TrimSpace(first), "--control ")
	if err != nil || !found {
		t.Fatalf("%q, %v", first, err)
	}
	return control, func() (string, string, int) {
		rest, _ := io.ReadAll(lines)
		parent.Wait()
		return stdout.String(), string(rest), parent.ProcessState.ExitCode()
	}
}

// Members that others have started take the places that they ask for, or any; a
// link between two of them is cut by the run's proxy on the way.
func TestRemoteMembers(t *testing.T) {
	control, answer := startRemote(t, remoteTopology)
	stranger, err := net.Dial("tcp", control)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if n, err := stranger.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("who says no hello is answered")
	}
	var members []*exec.Cmd
	for _, arguments := range [][]string{{"--node", "9"}, {"--node", "3"}, {}, {}} {
		m := exec.Command("zfab", append([]string{"member", "--control", control}, arguments...)...)
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Process.Kill(); m.Wait() })
		members = append(members, m)
		if len(arguments) > 0 && arguments[1] == "9" {
			m.Wait() // there is no such place, and it is sent away
		}
	}
	text, said, code := answer()
	if !strings.Contains(said, "no member") || !strings.Contains(said, "no place for a member") {
		t.Errorf("of strangers it says: %s", said)
	}
	var r report.Report
	if err := json.Unmarshal([]byte(text), &r); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v:\n%s", code, err, text)
	}
	if r.Runner != "remote" || r.Messages.Received != 3*2*2000 || r.Links.Open != 3 || r.Links.Sockets != nil || r.Faults == nil || r.Faults.Items[0].Occurrences != 1 {
		t.Errorf("%s", text)
	}
	for i, m := range members[1:] {
		if err := m.Wait(); err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
}

// A member that dies is told of, and ends the run.
func TestRemoteMemberDies(t *testing.T) {
	control, answer := startRemote(t, strings.Replace(remoteTopology, "rate: 4000", "rate: 20", 1))
	var members []*exec.Cmd
	for range 3 {
		m := exec.Command("zfab", "member", "--control", control)
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Process.Kill(); m.Wait() })
		members = append(members, m)
	}
	await(t, "three members linked", func() bool { return sockets(t, members[0].Process.Pid) >= 4 })
	members[0].Process.Kill()
	text, said, code := answer()
	if code != exitFailed || !strings.Contains(text+said, "its connection has ended") {
		t.Errorf("exit code %d:\n%s%s", code, text, said)
	}
}
