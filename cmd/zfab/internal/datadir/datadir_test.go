package datadir

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zfab/zfab/fabric/directory"
)

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// fill saves n entries in several turns, and returns what is there.
func fill(t *testing.T, s *Store, from, n int) map[string]string {
	t.Helper()
	entries := map[string]string{}
	var changes []directory.Change
	for i := range n {
		key, value := fmt.Sprintf("key %05d", from+i), strings.Repeat(fmt.Sprint("value ", i), i%20)
		entries[key] = value
		changes = append(changes, directory.Change{Key: []byte(key), Value: []byte(value)})
		if len(changes) == 100 || i == n-1 {
			if err := s.Save(changes); err != nil {
				t.Fatal(err)
			}
			changes = nil
		}
	}
	return entries
}

func load(t *testing.T, s *Store) map[string]string {
	t.Helper()
	entries := map[string]string{}
	if err := s.Load(func(key, value []byte) error {
		entries[string(key)] = string(value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestKeepsWhatWasSaved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	s := mustOpen(t, dir)
	if got := load(t, s); len(got) != 0 {
		t.Errorf("a new one has %v", got)
	}
	want := fill(t, s, 0, 1000)
	if err := s.Save([]directory.Change{
		{Key: []byte("key 00007")}, {Key: []byte("never there")}, // removed
		{Key: []byte("key 00008"), Value: []byte("other")},
		{Key: []byte("key 00009")}, {Key: []byte("key 00009"), Value: []byte{}}, // in order
	}); err != nil {
		t.Fatal(err)
	}
	delete(want, "key 00007")
	want["key 00008"], want["key 00009"] = "other", ""
	for range 2 {
		if got := load(t, s); !maps.Equal(got, want) {
			t.Errorf("%d entries, want %d", len(got), len(want))
		}
		mustClose(t, s)
		s = mustOpen(t, dir)
	}
	stop := errors.New("stop")
	if err := s.Load(func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("load ended with %v", err)
	}
	mustClose(t, s)
}

func TestSaveIsAllOrNothing(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer mustClose(t, s)
	tooLong := bytes.Repeat([]byte("k"), 1<<16)
	if err := s.Save([]directory.Change{{Key: []byte("a"), Value: []byte("1")}, {Key: tooLong, Value: []byte("2")}}); err == nil {
		t.Fatal("a key of 64 KiB was taken")
	}
	if got := load(t, s); len(got) != 0 {
		t.Errorf("left is %v", got)
	}
}

// A start can be interrupted anywhere.
func TestInterruptedStarts(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"before the database": func(dir string) error { return nil },
		"in the database":     func(dir string) error { return os.WriteFile(filepath.Join(dir, dataFile), nil, 0o600) },
		"before the format": func(dir string) error {
			s, err := Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(s.Close(), os.Remove(filepath.Join(dir, formatFile)))
		},
		"in the format": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, formatFile+unfinished), []byte("zf"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, dir)
			want := fill(t, s, 0, 10)
			mustClose(t, s)
			s = mustOpen(t, dir)
			if got := load(t, s); !maps.Equal(got, want) {
				t.Errorf("there is %v", got)
			}
			mustClose(t, s)
		})
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		make func(dir string) error // of one that was fine
		want []string
	}{
		"another version": {
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, formatFile), []byte("zfab directory data, version 2\n"), 0o600)
			},
			[]string{"another version", "version 2", "version 1", "move it away"},
		},
		"not a data directory": {
			func(dir string) error {
				return errors.Join(os.Remove(filepath.Join(dir, formatFile)), os.WriteFile(filepath.Join(dir, "letters.txt"), nil, 0o600))
			},
			[]string{"is not one", "letters.txt"},
		},
		"no database":       {func(dir string) error { return os.Remove(filepath.Join(dir, dataFile)) }, []string{"damaged", "there is no"}},
		"an empty database": {func(dir string) error { return os.Truncate(filepath.Join(dir, dataFile), 0) }, []string{"damaged", "is empty"}},
		"another file": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, dataFile), []byte(strings.Repeat("text\n", 10_000)), 0o600)
		}, []string{"damaged"}},
		"a database cut short": {func(dir string) error { return os.Truncate(filepath.Join(dir, dataFile), 40_000) }, []string{"damaged", "40000 bytes of"}},
		"a file in its place":  {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, []string{"cannot be made"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			s := mustOpen(t, dir)
			fill(t, s, 0, 1000)
			mustClose(t, s)
			if err := test.make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			var e *Error
			if !errors.As(err, &e) || e.Dir != dir {
				t.Fatalf("opened with %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not say %q", err, want)
				}
			}
		})
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second time: %v", err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, dir))
}

// A file that was damaged anywhere, in any way, is refused or still has all that was saved: never less, and never
// something else. What bbolt makes of some of these files would end the process: so each is opened in one.
func TestDamageIsFound(t *testing.T) {
	if dir := os.Getenv("DATADIR_TO_OPEN"); dir != "" {
		s, err := Open(dir)
		if err != nil {
			fmt.Println("refused:", err)
			return
		}
		mustOpened(t, s, dir)
		return
	}
	whole := t.TempDir()
	s := mustOpen(t, whole)
	fill(t, s, 0, 2000)
	mustClose(t, s)
	file, err := os.ReadFile(filepath.Join(whole, dataFile))
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(file, "\x00"))
	rng := rand.New(rand.NewPCG(1, 1))
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	refused := 0
	for round := range rounds {
		b := bytes.Clone(file)
		at, what := rng.IntN(used), ""
		switch round % 5 {
		case 0:
			what = fmt.Sprintf("bit flipped in byte %d", at)
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			what = fmt.Sprintf("page of byte %d is zeros", at)
			clear(b[at&^4095 : min(len(b), at&^4095+4096)])
		case 2:
			what = fmt.Sprintf("page of byte %d is noise", at)
			for i := at &^ 4095; i < min(len(b), at&^4095+4096); i++ {
				b[i] = byte(rng.Uint32())
			}
		case 3:
			what = fmt.Sprintf("cut at byte %d", at)
			b = b[:at]
		case 4:
			from := rng.IntN(used)
			what = fmt.Sprintf("page of byte %d is that of byte %d", at, from)
			copy(b[at&^4095:min(len(b), at&^4095+4096)], file[from&^4095:])
		}
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(filepath.Join(dir, formatFile), []byte(format), 0o600),
			os.WriteFile(filepath.Join(dir, dataFile), b, 0o600)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestDamageIsFound$")
		cmd.Env = append(os.Environ(), "DATADIR_TO_OPEN="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		if bytes.Contains(out, []byte("refused: data directory")) {
			refused++
		}
	}
	if refused < rounds/4 {
		t.Errorf("%d of %d were refused: the damage hits nothing", refused, rounds)
	}
}

// mustOpened checks a data directory that was damaged and was opened: everything is there, or all but what the last
// Save brought, if the damage is where bbolt notes which Save was the last.
func mustOpened(t *testing.T, s *Store, dir string) {
	got := load(t, s)
	for i := range 2000 {
		key, value := fmt.Sprintf("key %05d", i), strings.Repeat(fmt.Sprint("value ", i), i%20)
		if v, there := got[key]; there && v != value || !there && len(got) != 1900 {
			t.Errorf("%s: %q is %q, there are %d entries", dir, key, v, len(got))
		}
	}
	fill(t, s, 5000, 500)
	mustClose(t, s)
}
