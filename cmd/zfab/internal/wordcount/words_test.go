package wordcount

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var pattern = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

func split(t *testing.T, r io.Reader, buffer int) []string {
	t.Helper()
	var got []string
	err := words(r, make([]byte, buffer), func(word []byte) error {
		got = append(got, string(word))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Any text of any bytes, in reads of any size, gives the words of the pattern.
func TestWordsAgreeWithThePattern(t *testing.T) {
	const alphabet = "aZ_9 \n\x00\xffé-"
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		text := make([]byte, r.IntN(100))
		for i := range text {
			text[i] = alphabet[r.IntN(len(alphabet))]
		}
		want := pattern.FindAllString(string(text), -1)
		for _, buffer := range []int{1, 2, 3, 64, 1000} {
			if got := split(t, bytes.NewReader(text), buffer); !slices.Equal(got, want) {
				t.Fatalf("%q in reads of %d: %q, want %q", text, buffer, got, want)
			}
		}
		if got := split(t, iotest.DataErrReader(bytes.NewReader(text)), 64); !slices.Equal(got, want) {
			t.Fatalf("%q with data at the end: %q, want %q", text, got, want)
		}
	}
}

func TestWordsAreBounded(t *testing.T) {
	none := func([]byte) error { return nil }
	if err := words(strings.NewReader(strings.Repeat("a", MaxWord)), make([]byte, 4096), none); err != nil {
		t.Errorf("a word of %d bytes: %v", MaxWord, err)
	}
	if err := words(strings.NewReader(strings.Repeat("a", MaxWord+1)), make([]byte, 4096), none); !errors.Is(err, errLongWord) {
		t.Errorf("a word of %d bytes: %v", MaxWord+1, err)
	}
	broken := errors.New("broken")
	if err := words(iotest.ErrReader(broken), make([]byte, 16), none); !errors.Is(err, broken) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestFindFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("tree/a", "1"), write("tree/deep/b", "22")
	outside := write("outside", "333")
	for _, link := range []struct{ to, at string }{{outside, "tree/link"}, {filepath.Join(dir, "tree"), "treelink"}} {
		if err := os.Symlink(link.to, filepath.Join(dir, link.at)); err != nil {
			t.Skip(err)
		}
	}
	for name, c := range map[string]struct {
		paths []string
		want  []file
	}{
		"links below a directory are not followed": {[]string{filepath.Join(dir, "tree")}, []file{{a, 1}, {b, 2}}},
		"a link that is named is":                  {[]string{filepath.Join(dir, "treelink"), filepath.Join(dir, "tree/link")}, []file{{a, 1}, {b, 2}, {filepath.Join(dir, "tree/link"), 3}}},
		"named twice counts twice":                 {[]string{a, a}, []file{{a, 1}, {a, 1}}},
	} {
		got, err := findFiles(c.paths)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	if _, err := findFiles([]string{filepath.Join(dir, "no-such")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestDivideGivesEachFileToOneNode(t *testing.T) {
	files := []file{{"a", 100}, {"b", 60}, {"c", 50}, {"d", 0}, {"e", 0}, {"f", 1}}
	shares := divide(files, 2)
	all := slices.Sorted(slices.Values(slices.Concat(shares...)))
	if !slices.Equal(all, []string{"a", "b", "c", "d", "e", "f"}) {
		t.Errorf("%q", shares)
	}
	if !slices.Contains(shares[0], "a") || slices.Contains(shares[0], "b") || slices.Contains(shares[0], "c") {
		t.Errorf("the bytes are not divided evenly: %q", shares)
	}
	if empty := divide(nil, 3); len(empty) != 3 {
		t.Errorf("no files: %q", empty)
	}
}
