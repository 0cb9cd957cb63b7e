package fabric_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The import rules of this repository. Imports go downwards only; below the
// loops nothing reaches a clock or a socket; one package knows the ZeroMQ
// library; and what the library drags into a program that uses it is a short
// list, written out here.

const module = "github.com/zfab/zfab"

// layers says what each package of fabric may import of this module. A
// package that is not here is refused: give it a line, and so a place.
var layers = map[string][]string{
	"fabric/internal/wire":       {},
	"fabric/internal/planted":    {},
	"fabric/internal/flow":       {"fabric/internal/planted"},
	"fabric/internal/mpcheck":    {},
	"fabric/internal/rendezvous": {},
	"fabric/internal/lanes":      {},
	"fabric/internal/peering":    {"fabric/internal/planted", "fabric/internal/wire"},
	"fabric/internal/transport":  {},
	"fabric/internal/circuit":    {"fabric/internal/wire"},
	"fabric/internal/link": {"fabric/internal/wire", "fabric/internal/flow", "fabric/internal/circuit", "fabric/internal/planted",
		"fabric/internal/transport"},
	"fabric/internal/sim": {"fabric/internal/wire", "fabric/internal/flow", "fabric/internal/link",
		"fabric/internal/peering"},
	"fabric/internal/sim/run": {"fabric/internal/sim"},
	"fabric/directory": {"fabric/internal/mpcheck", "fabric/internal/rendezvous", "fabric/internal/lanes",
		"fabric/internal/transport"},
	"fabric": {"fabric/directory", "fabric/internal/lanes", "fabric/internal/link", "fabric/internal/peering", "fabric/internal/transport",
		"fabric/internal/flow", "fabric/internal/wire", "fabric/internal/mpcheck", "fabric/internal/rendezvous"},
}

// public are the packages that programs may import. patterns and cmd/zfab
// import nothing else of this module but their own internal packages, which
// proves the public ones sufficient.
var public = []string{"fabric", "fabric/directory", "patterns"}

// pure are the packages that compute only, with all that they may import of
// the standard library. Who may import time has its types and units from it, and
// no clock.
var pure = map[string][]string{
	"fabric/internal/wire":    {"encoding/binary", "errors", "fmt", "math", "math/bits", "strings", "unicode/utf8"},
	"fabric/internal/flow":    {"errors", "fmt", "math", "math/bits", "sync/atomic"},
	"fabric/internal/circuit": {"errors", "fmt"},
	"fabric/internal/lanes":   {"encoding/binary", "fmt"},
	"fabric/internal/mpcheck": {"encoding/binary", "errors", "fmt", "math", "math/bits"},
	"fabric/internal/peering": {"fmt", "time"},
}

// timeless is what pure packages may use of the package time.
var timeless = []string{"Time", "Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}

// The files of the link that may know time and waiting, because they drive its
// core. All others are the core.
const linkPackage = "fabric/internal/link"

var (
	linkLoops = []string{"link.go", "conn.go", "circuit.go", "handshake.go", "inbox.go", "offer.go", "flush.go", "stats.go", "drive.go"}
	// notInCore are standard packages that bring time, chance or I/O.
	notInCore = []string{"context", "io", "log", "log/slog", "math/rand", "math/rand/v2", "net", "os", "syscall", "time"}
	// notInLink is I/O that even the loops leave to the transport.
	notInLink = []string{"net", "os", "syscall"}
)

// The files of the directory that are its table, and compute only.
const directoryPackage = "fabric/directory"

var directoryCore = []string{"table.go", "lease.go", "holder.go", "channel.go", "feed.go", "view.go", "names.go",
	"choose.go", "pool.go", "look.go", "replica.go", "replicaplan.go"}

// onlyImporter names the one package that may import a library.
var onlyImporter = map[string]string{
	"github.com/go-zeromq/zmq4": "fabric/internal/transport",
	"go.etcd.io/bbolt":          "cmd/zfab/internal/datadir",
	"go.etcd.io/etcd":           "cmd/zfab/internal/etcddir",
	"google.golang.org/grpc":    "cmd/zfab/internal/etcddir",
}

// modules are all modules that programs which use fabric or patterns are
// linked with, and why.
var modules = map[string]string{
	"github.com/go-zeromq/zmq4":           "ZMTP handshake",
	"golang.org/x/sync":                   "imported by zmq4",
	"golang.org/x/text":                   "imported by zmq4",
	"golang.org/x/sys":                    "socket options",
	"github.com/vmihailenco/msgpack/v5":   "directory protocol, typed payloads",
	"github.com/vmihailenco/tagparser/v2": "imported by msgpack",
	"github.com/cespare/xxhash/v2":        "placing keys",
}

// pkg is what `go list -deps -json` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct{ Path string }
	GoFiles    []string
	Imports    []string
	Deps       []string

	fileImports map[string][]string // of link and the directory's core: by file
	clock       []string            // of what is pure: what it uses of time beyond timeless
}

// own is the package's path in this module, or "" if it is not of it.
func (p *pkg) own() string {
	if p.Module == nil || p.Module.Path != module {
		return ""
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

func TestImportRules(t *testing.T) {
	packages := list(t)
	if len(packages) < 10 {
		t.Fatalf("go list names only %d packages", len(packages))
	}
	for _, b := range breaches(packages) {
		t.Error(b)
	}
}

// The rules must be able to catch what they forbid.
func TestImportRulesCatchBreaches(t *testing.T) {
	mine := &struct{ Path string }{module}
	at := func(path string, imports ...string) *pkg {
		return &pkg{ImportPath: module + "/" + path, Module: mine, Imports: imports, Deps: imports}
	}
	foreign := &pkg{ImportPath: "example.com/heavy/sub", Module: &struct{ Path string }{"example.com/heavy"}}
	zmq4 := &pkg{ImportPath: "github.com/go-zeromq/zmq4", Module: &struct{ Path string }{"github.com/go-zeromq/zmq4"}}
	core := at(linkPackage)
	core.fileImports = map[string][]string{"core.go": {"time"}, "link.go": {"time"}}
	watch := at("fabric/internal/peering", "time")
	watch.clock = []string{"time.Now"}
	locked := at(directoryPackage)
	locked.fileImports = map[string][]string{"table.go": {"time", "sync"}}
	socket := at(linkPackage)
	socket.fileImports = map[string][]string{"link.go": {"net"}}

	for _, c := range []struct {
		name, want string
		p          *pkg
	}{
		{"upwards", "may not import fabric/internal/link", at("fabric/internal/flow", module+"/fabric/internal/link")},
		{"past the public packages", "may not import fabric/internal/link", at("patterns/pipeline", module+"/fabric/internal/link")},
		{"another's internals", "may not import patterns/internal/x", at("cmd/zfab", module+"/patterns/internal/x")},
		{"package without a place", "has no place", at("fabric/internal/extra")},
		{"clock below the loops", "may not import time", at("fabric/internal/flow", "time")},
		{"library in a second place", "may not import github.com/go-zeromq/zmq4", at("fabric/directory", zmq4.ImportPath)},
		{"a part of the library in a second place", "may not import github.com/go-zeromq/zmq4", at("fabric", zmq4.ImportPath+"/security/null")},
		{"etcd's client in a second place", "may not import go.etcd.io/etcd/client/v3", at("cmd/zfab", "go.etcd.io/etcd/client/v3")},
		{"new dependency", "example.com/heavy", at("fabric", foreign.ImportPath)},
		{"clock in the core", "core.go may not import time", core},
		{"clock beside the types of time", "may not use time.Now", watch},
		{"lock in the directory's table", "table.go may not import sync", locked},
		{"socket in a loop", "link.go may not import net", socket},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := breaches([]*pkg{c.p, foreign, zmq4})
			if len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("breaches %q, want one with %q", got, c.want)
			}
		})
	}
	for _, p := range []*pkg{
		at("fabric", module+"/fabric/internal/link", module+"/fabric/directory", "time"),
		at("fabric/internal/transport", zmq4.ImportPath, "net"),
		at("patterns", module+"/fabric", module+"/fabric/directory"),
		at("patterns/pipeline", module+"/patterns", module+"/patterns/internal/x"),
		at("cmd/zfab", module+"/cmd/zfab/internal/report", module+"/patterns", foreign.ImportPath),
	} {
		if got := breaches([]*pkg{p, foreign, zmq4}); len(got) != 0 {
			t.Errorf("%s: breaches %q, want none", p.ImportPath, got)
		}
	}
}

// breaches holds packages against the rules, and says what to do.
func breaches(packages []*pkg) (found []string) {
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	moduleOf := map[string]string{}
	for _, p := range packages {
		if p.Module != nil {
			moduleOf[p.ImportPath] = p.Module.Path
		}
	}
	for _, p := range packages {
		own := p.own()
		if own == "" {
			continue
		}
		inFabric := within(own, "fabric")
		mayImport, placed := layers[own]
		if inFabric && !placed {
			report("%s has no place among the layers: give it a line in the table of fabric/imports_test.go, with what it may import", own)
		}
		for _, path := range p.Imports {
			if of, ok := strings.CutPrefix(path, module+"/"); ok {
				switch {
				case inFabric && placed && !slices.Contains(mayImport, of):
					report("%s may not import %s: imports go downwards only; move what both need below them, or pass it as an argument", own, of)
				case !inFabric && !usable(own, of):
					report("%s may not import %s: only public packages (%s) and its own; make what is missing public, or do without",
						own, of, strings.Join(public, ", "))
				}
			}
			if allowed, ok := pure[own]; ok && isStandard(path) && !slices.Contains(allowed, path) {
				report("%s may not import %s: it computes only; pass time, randomness and I/O as arguments (or extend the list in fabric/imports_test.go if the package is as pure)", own, path)
			}
			for library, importer := range onlyImporter {
				if within(path, library) && own != importer {
					report("%s may not import %s: only %s knows that library; ask it for what you need", own, path, importer)
				}
			}
		}
		if inFabric || within(own, "patterns") {
			reached := map[string]bool{}
			for _, d := range p.Deps {
				m := moduleOf[d]
				if _, ok := modules[m]; m != "" && m != module && !ok && !reached[m] {
					reached[m] = true
					report("%s now depends on module %s (by %s): every program that uses it would too; do without, or write it into the list in fabric/imports_test.go with the reason", own, m, d)
				}
			}
		}
		for _, use := range p.clock {
			report("%s may not use %s: it computes only; pass the time as an argument", own, use)
		}
		if own == directoryPackage {
			for file, imports := range p.fileImports {
				for _, path := range imports {
					if path != "time" && (slices.Contains(notInCore, path) || path == "sync") {
						report("%s/%s may not import %s: the directory's table is told the time, and is locked by who calls it; do it in registry.go", own, file, path)
					}
				}
			}
			continue
		}
		for file, imports := range p.fileImports {
			forbidden, why := notInCore, "the link's core is told the time and does no I/O; do it in a loop ("+strings.Join(linkLoops, ", ")+")"
			if slices.Contains(linkLoops, file) {
				forbidden, why = notInLink, "the transport does the link's I/O; ask it for what you need"
			}
			for _, path := range imports {
				if slices.Contains(forbidden, path) {
					report("%s/%s may not import %s: %s", own, file, path, why)
				}
			}
		}
	}
	return found
}

// usable reports whether a package outside fabric may import another of this
// module: a public one, or one of its own.
func usable(importer, imported string) bool {
	top, _, _ := strings.Cut(importer, "/")
	if top == "cmd" {
		top = strings.Join(strings.SplitN(importer, "/", 3)[:2], "/") // cmd/zfab
	}
	if within(imported, top) || slices.Contains(public, imported) {
		return true
	}
	return within(imported, "patterns") && !slices.Contains(strings.Split(imported, "/"), "internal")
}

// within reports whether path is tree or lies in it.
func within(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// list returns the packages of this module and all that they depend on.
func list(t *testing.T) (packages []*pkg) {
	t.Helper()
	// A passed test is not run again while what it has read is unchanged, and
	// what `go list` reads for it does not count: so look at the tree, too.
	for _, tree := range []string{"../fabric", "../patterns", "../cmd"} {
		err := filepath.WalkDir(tree, func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Dir,Standard,Module,GoFiles,Imports,Deps", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(pkg)
		if err := d.Decode(p); err == io.EOF {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		switch _, computes := pure[p.own()]; {
		case p.own() == linkPackage:
			p.fileImports = fileImports(t, p, p.GoFiles, linkLoops)
		case p.own() == directoryPackage:
			p.fileImports = fileImports(t, p, directoryCore, directoryCore)
			p.clock = clock(t, p, directoryCore)
		case computes:
			p.clock = clock(t, p, p.GoFiles)
		}
		packages = append(packages, p)
	}
}

// fileImports returns what some files of a package import. Those listed must be
// there.
func fileImports(t *testing.T, p *pkg, files, listed []string) map[string][]string {
	t.Helper()
	for _, file := range listed {
		if !slices.Contains(p.GoFiles, file) {
			t.Fatalf("%s/%s is on a list and is not there: take it off the list in fabric/imports_test.go", p.own(), file)
		}
	}
	imports := map[string][]string{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imports[file] = append(imports[file], path)
		}
	}
	return imports
}

// clock returns what some files of a package use of time, but for its types and
// units.
func clock(t *testing.T, p *pkg, files []string) (uses []string) {
	t.Helper()
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(timeless, s.Sel.Name) {
				uses = append(uses, "time."+s.Sel.Name)
			}
			return true
		})
	}
	return uses
}
