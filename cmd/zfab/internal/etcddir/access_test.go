package etcddir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What is wrong with access is said when the store is opened, with the file that it is
// in.
func TestAccessThatMakesNoSense(t *testing.T) {
	text, missing := write(t, "nonsense"), filepath.Join(t.TempDir(), "missing")
	large := write(t, strings.Repeat("x", maxFile+1))
	for name, c := range map[string]struct {
		access Access
		file   string // of a *FileError, if it is one
		says   string
	}{
		"no such file":             {Access{CA: missing}, missing, "no such file"},
		"a directory":              {Access{CA: t.TempDir()}, "", "is a directory"},
		"no certificate":           {Access{CA: text}, text, "there is no certificate in it, in PEM"},
		"another file":             {Access{CA: large}, large, "more than 4194304 bytes"},
		"a certificate alone":      {Access{Cert: text}, "", "a certificate needs its key"},
		"a key alone":              {Access{Key: text}, "", "a certificate needs its key"},
		"no such certificate":      {Access{Cert: missing, Key: text}, missing, "no such file"},
		"no such key":              {Access{Cert: text, Key: missing}, missing, "no such file"},
		"neither of the two is so": {Access{Cert: text, Key: text}, text + " with " + text, "failed to find any PEM data"},
		"a user alone":             {Access{User: "root"}, "", "give user:password"},
		"no password":              {Access{User: "root:"}, "", "give user:password"},
		"no user":                  {Access{User: ":secret"}, "", "give user:password"},
	} {
		store, err := Open("etcds://127.0.0.1:1", c.access)
		if err == nil {
			store.Close()
			t.Errorf("%s: it is taken", name)
			continue
		}
		var file *FileError
		if isFile := errors.As(err, &file); !strings.Contains(err.Error(), c.says) || c.file != "" && (!isFile || file.File != c.file) {
			t.Errorf("%s: %v, want %s: %s", name, err, c.file, c.says)
		}
		if n := strings.Count(err.Error(), missing); n > 1 {
			t.Errorf("%s: the file is named %d times: %v", name, n, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is told: %v", name, err)
		}
	}
	for _, a := range []Access{{CA: text}, {Cert: text, Key: text}, {ServerName: "etcd"}} {
		if _, err := Open("etcd://127.0.0.1:1", a); err == nil || !strings.Contains(err.Error(), "without TLS") {
			t.Errorf("%+v without TLS: %v", a, err)
		}
	}
}

// A user does not make the opening wait for a member.
func TestOpenDoesNotWait(t *testing.T) {
	for _, url := range []string{"etcd://127.0.0.1:1", "etcds://127.0.0.1:1"} {
		store, err := Open(url, Access{User: "root:secret"})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if strings.Contains(store.String(), "secret") {
			t.Errorf("the password is told: %s", store)
		}
		store.Close()
	}
}

func TestReadUser(t *testing.T) {
	for text, want := range map[string]string{
		"root:a:b c": "root:a:b c", "root:secret\n": "root:secret", "root:secret\r\nmore\n": "root:secret",
		"": "", "root": "", "root:": "", ":secret": "", "\nroot:secret": "",
	} {
		got, err := ReadUser(write(t, text))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the password is told: %v", text, err)
		}
	}
	if _, err := ReadUser(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
