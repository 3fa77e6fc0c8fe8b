package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath     string
	Dir            string
	Export         string // file of its export data
	Imports        []string
	Deps           []string
	GoFiles        []string
	IgnoredGoFiles []string // left out by build tags
}

// root returns the module's folder.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// watchSources looks at every source of the module, so that a cached result of
// the test is not used when one has changed: the go command that is run below
// reads them behind the cache's back.
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root(t), func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == ".git":
			return filepath.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		_, err = os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // somebody is editing
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// goList runs go list in the module's folder.
func goList(t *testing.T, args ...string) []*pkg {
	t.Helper()
	watchSources(t)
	args = append([]string{"list", "-e", "-json=ImportPath,Dir,Export,Imports,Deps,GoFiles,IgnoredGoFiles"}, args...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var pkgs []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &pkg{}
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// ours returns the part of an import path behind the module's name, if it is
// one of the module's packages.
func ours(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }

// outside says whether a package is none of the program's: under test/ and
// scripts/ everything may be imported, and nothing is imported from there.
func outside(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return top == "test" || top == "scripts"
}

// checkImports returns what packages import against the table.
func checkImports(pkgs []*pkg, rules, closures map[string]rule) []string {
	var wrong []string
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, p := range pkgs {
		name, ok := ours(p.ImportPath)
		if !ok || len(p.GoFiles) == 0 || outside(name) {
			continue
		}
		r, known := rules[name]
		if !known {
			report("%s has no row in the table of imports: add one, with its reason", name)
			continue
		}
		for _, path := range p.Imports {
			dep, ok := ours(path)
			if ok && !slices.Contains(r.imports, dep) {
				report("%s imports %s; it may import %q: %s", name, dep, r.imports, r.why)
			}
		}
		c, closed := closures[name]
		if !closed {
			continue
		}
		for _, path := range p.Deps {
			dep, ok := ours(path)
			if ok && !slices.Contains(c.imports, dep) {
				report("%s pulls in %s; below it may stand %q: %s", name, dep, c.imports, c.why)
			}
		}
	}
	return wrong
}

// Every package of the module imports only what stands below it.
func TestImportsGoDown(t *testing.T) {
	for _, tags := range []string{"", "invariants"} {
		pkgs := goList(t, "-tags="+tags, "./...")
		for _, w := range checkImports(pkgs, rules, closures) {
			t.Errorf("tags %q: %s", tags, w)
		}
	}
}

// The table itself has no loops: imports of imports are never the package.
func TestTableGoesDown(t *testing.T) {
	var below func(name, from string)
	below = func(name, from string) {
		for _, dep := range rules[from].imports {
			if dep == name {
				t.Errorf("%s may import itself, by way of %s", name, from)
				return
			}
			if _, ok := rules[dep]; !ok {
				t.Errorf("%s may import %s, which has no row", from, dep)
			}
			below(name, dep)
		}
	}
	for name, r := range rules {
		below(name, name)
		if r.why == "" {
			t.Errorf("%s has no reason", name)
		}
	}
}

// The check finds what it is for.
func TestPlantedImports(t *testing.T) {
	p := func(name string, imports ...string) *pkg {
		q := &pkg{ImportPath: module + "/" + name, GoFiles: []string{"x.go"}}
		for _, i := range imports {
			if i != "fmt" {
				i = module + "/" + i
			}
			q.Imports = append(q.Imports, i)
			q.Deps = append(q.Deps, i)
		}
		return q
	}
	far := p("client", "api")
	far.Deps = append(far.Deps, module+"/bdev")
	empty := p("nowhere", "server")
	empty.GoFiles = nil
	for _, c := range []struct {
		pkg  *pkg
		want string // "" for allowed
	}{
		{p("layout", "sched", "fmt"), ""},
		{p("layout", "api"), "layout imports api"},
		{p("mblock", "mlog"), "mblock imports mlog"},
		{p("mlog", "mblock"), "mlog imports mblock"},
		{p("mpool/check", "mpool/omf", "mlog"), ""},
		{p("mpool/check", "mpool"), "mpool/check imports mpool;"},
		{p("mpool", "bdev/sim"), "mpool imports bdev/sim"},
		{p("server", "test/rig"), "server imports test/rig"},
		{p("client", "ioctl", "api", "layout"), ""},
		{far, "client pulls in bdev"},
		{p("helpers"), "helpers has no row"},
		{p("test/rig", "server", "bdev/sim"), ""},
		{empty, ""},
	} {
		got := strings.Join(checkImports([]*pkg{c.pkg}, rules, closures), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s importing %q: got %q, want %q", c.pkg.ImportPath, c.pkg.Imports, got, c.want)
		}
	}
}
