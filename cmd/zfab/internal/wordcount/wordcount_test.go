package wordcount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The answer for a part of Go's own source, binary test data included, is that
// of grep, sort and uniq.
func TestCountsAreThoseOfGrep(t *testing.T) {
	for _, tool := range []string{"grep", "sort", "uniq", "go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	paths := []string{filepath.Join(source, "compress"), filepath.Join(source, "net"), filepath.Join(source, "go/token/token.go")}
	script := `export LC_ALL=C
grep -raohE '[A-Za-z_][A-Za-z0-9_]*' "$@" | sort | uniq -c | sort -k1,1nr -k2,2 | sed 's/^ *//'`
	want, err := exec.Command("sh", append([]string{"-c", script, "sh"}, paths...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), paths, Options{Nodes: 3, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, c := range r.Counts {
		fmt.Fprintf(&got, "%d %s\n", c.Count, c.Word)
	}
	if len(want) < 100_000 {
		t.Errorf("only %d bytes to compare", len(want))
	}
	if !bytes.Equal(got.Bytes(), want) {
		a, b := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
		t.Errorf("%d lines, want %d", len(a), len(b))
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("line %d is %q, want %q", i+1, a[i], b[i])
			}
		}
	}
}

// More different words than a mapper's table holds: it sends in parts.
func TestMoreWordsThanATableHolds(t *testing.T) {
	const distinct = 3 * maxLocal
	var text bytes.Buffer
	for range 2 {
		for i := range distinct {
			fmt.Fprintf(&text, "w%d ", i)
		}
	}
	path := filepath.Join(t.TempDir(), "many")
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), []string{path}, Options{Nodes: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Distinct != distinct || r.Words != 2*distinct {
		t.Errorf("%d different words, %d in all", r.Distinct, r.Words)
	}
	if first, last := r.Counts[0], r.Counts[distinct-1]; first != (Count{"w0", 2}) || last != (Count{"w99999", 2}) {
		t.Errorf("from %v to %v", first, last)
	}
}

// A file that cannot be read ends the whole count, and everything that runs.
func TestUnreadableFileEndsTheCount(t *testing.T) {
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, bytes.Repeat([]byte("a"), MaxWord+1), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Run(context.Background(), []string{long, "."}, Options{Nodes: 3, Logger: slog.New(slog.DiscardHandler)})
	var bad *FileError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), long) {
		t.Errorf("%v, want a *FileError with the file's name", err)
	}
}
