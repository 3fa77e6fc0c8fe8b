package arch

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// exemption allows a file some of the things that the engine must not use.
type exemption struct {
	uses []string // keys of findings
	why  string
}

// finding is something in a source that the engine must not use.
type finding struct {
	pos  token.Position
	what string // such as "go", "chan", "select", "sync", "time.Now", "map order"
	hint string
}

func (f finding) String() string { return fmt.Sprintf("%s: %s: %s", f.pos, f.what, f.hint) }

// forbidden lists what may not be used of packages outside the module, by
// import path and name. The name "*" is the import itself.
var forbidden = map[string]map[string]string{
	"sync": {"*": "use sched.Mutex, Cond, Completion; sync/atomic is fine"},
	"time": {
		"Now": "use Sched.Now", "Since": "use Sched.Now", "Until": "use Sched.Now",
		"Sleep": "use Sched.Sleep", "After": "use Sched.Sleep", "AfterFunc": "use Sched.Sleep in a task",
		"Tick": "use Sched.Sleep", "NewTimer": "use Sched.Sleep", "NewTicker": "use Sched.Sleep",
	},
	"context": {
		"WithCancel": "use Sched.WithCancel", "WithCancelCause": "use Sched.WithCancel",
		"WithTimeout": "use Sched.WithTimeout", "WithTimeoutCause": "use Sched.WithTimeout",
		"WithDeadline": "use Sched.WithTimeout", "WithDeadlineCause": "use Sched.WithTimeout",
		"AfterFunc": "use a task of Sched.Go",
	},
	"math/rand": {"*": "use Sched.Rand, or take dice from the caller"},
	"math/rand/v2": {
		"Int": drawn, "IntN": drawn, "Int32": drawn, "Int32N": drawn, "Int64": drawn, "Int64N": drawn,
		"Uint": drawn, "UintN": drawn, "Uint32": drawn, "Uint32N": drawn, "Uint64": drawn, "Uint64N": drawn,
		"N": drawn, "Float32": drawn, "Float64": drawn, "NormFloat64": drawn, "ExpFloat64": drawn,
		"Perm": drawn, "Shuffle": drawn,
	},
	"maps": {"Keys": ordered, "Values": ordered, "All": ordered},
	"runtime": {
		"Gosched": "use Sched.Point", "LockOSThread": "tasks of a simulation share one thread",
	},
}

const (
	drawn   = "use Sched.Rand, or take dice from the caller"
	ordered = "sort first (slices.Sorted), or say on the line why the order does not matter"
	waived  = "order does not matter:"
)

// scanner looks at one file.
type scanner struct {
	fset  *token.FileSet
	file  *ast.File
	info  *types.Info // nil: no types, and no findings that need them
	found []finding

	imports map[string]string // local name to import path
	waivers map[int]bool      // lines whose map order does not matter
	sorted  map[ast.Node]bool // calls of package maps whose result is sorted
}

// scan returns what the file must not contain. info may be nil.
func scan(fset *token.FileSet, file *ast.File, info *types.Info) []finding {
	s := &scanner{
		fset: fset, file: file, info: info,
		imports: map[string]string{}, waivers: map[int]bool{}, sorted: map[ast.Node]bool{},
	}
	s.readImports()
	s.readWaivers()
	ast.Inspect(file, s.visit)
	return s.found
}

func (s *scanner) report(n ast.Node, what, hint string) {
	s.found = append(s.found, finding{s.fset.Position(n.Pos()), what, hint})
}

func (s *scanner) readImports() {
	for _, i := range s.file.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		name := path[strings.LastIndexByte(path, '/')+1:]
		if path == "math/rand/v2" {
			name = "rand"
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		if hint, ok := forbidden[path]["*"]; ok {
			s.report(i, path, hint)
		}
		if _, ok := forbidden[path]; ok && name == "." {
			s.report(i, path, "import it by name")
		}
		s.imports[name] = path
	}
}

// readWaivers notes the lines with a comment that gives a reason.
func (s *scanner) readWaivers() {
	for _, g := range s.file.Comments {
		for _, c := range g.List {
			text := strings.TrimSpace(strings.TrimPrefix(c.Text, "//"))
			if reason, ok := strings.CutPrefix(text, waived); ok && strings.TrimSpace(reason) != "" {
				s.waivers[s.fset.Position(c.Pos()).Line] = true
			}
		}
	}
}

func (s *scanner) waived(n ast.Node) bool { return s.waivers[s.fset.Position(n.Pos()).Line] }

func (s *scanner) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		s.report(n, "go", "use Sched.Go")
	case *ast.SelectStmt:
		s.report(n, "select", "use sched.Cond or sched.Completion")
	case *ast.ChanType:
		s.report(n, "chan", "use sched.Cond or sched.Completion")
	case *ast.SendStmt:
		s.report(n, "chan", "use sched.Cond or sched.Completion")
	case *ast.UnaryExpr:
		if n.Op == token.ARROW {
			s.report(n, "chan", "use sched.Cond or sched.Completion")
		}
	case *ast.CallExpr:
		s.visitCall(n)
	case *ast.SelectorExpr:
		s.visitSelector(n)
	case *ast.RangeStmt:
		s.visitRange(n)
	}
	return true
}

// visitCall notes calls of package maps that are sorted at once.
func (s *scanner) visitCall(n *ast.CallExpr) {
	path, name := s.selected(n.Fun)
	if path != "slices" || !strings.HasPrefix(name, "Sorted") || len(n.Args) == 0 {
		return
	}
	if arg, ok := n.Args[0].(*ast.CallExpr); ok {
		s.sorted[arg.Fun] = true
	}
}

// selected returns the import path and the name of package.Name.
func (s *scanner) selected(e ast.Expr) (path, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	if s.info != nil {
		if used := s.info.Uses[id]; used != nil {
			p, isPackage := used.(*types.PkgName)
			if !isPackage {
				return "", ""
			}
			return p.Imported().Path(), sel.Sel.Name
		}
	}
	return s.imports[id.Name], sel.Sel.Name
}

func (s *scanner) visitSelector(n *ast.SelectorExpr) {
	path, name := s.selected(n)
	hint, ok := forbidden[path][name]
	if !ok {
		return
	}
	if path == "maps" {
		if !s.sorted[n] && !s.waived(n) {
			s.report(n, "map order", hint)
		}
		return
	}
	s.report(n, path+"."+name, hint)
}

func (s *scanner) visitRange(n *ast.RangeStmt) {
	if s.info == nil {
		return
	}
	t := s.info.TypeOf(n.X)
	if t == nil {
		s.report(n, "range", "its type is unknown: the package does not compile")
		return
	}
	switch under(t).(type) {
	case *types.Map:
		if !s.waived(n) {
			s.report(n, "map order", ordered)
		}
	case *types.Chan:
		s.report(n, "chan", "use sched.Cond or sched.Completion")
	}
}

// under returns the type that decides what a range does, also of a type
// parameter with one core type.
func under(t types.Type) types.Type {
	p, ok := types.Unalias(t).(*types.TypeParam)
	if !ok {
		return t.Underlying()
	}
	set, ok := p.Constraint().Underlying().(*types.Interface)
	if !ok {
		return t
	}
	for e := range set.EmbeddedTypes() {
		if u, ok := types.Unalias(e).(*types.Union); ok && u.Len() > 0 {
			return u.Term(0).Type().Underlying()
		}
		return e.Underlying()
	}
	return t
}

// loader parses and checks sources against compiled packages.
type loader struct {
	fset    *token.FileSet
	exports map[string]string // import path to file of export data
}

func newLoader(t *testing.T, args ...string) *loader {
	t.Helper()
	l := &loader{fset: token.NewFileSet(), exports: map[string]string{}}
	for _, p := range goList(t, append([]string{"-export", "-deps"}, args...)...) {
		l.exports[p.ImportPath] = p.Export
	}
	return l
}

func (l *loader) lookup(path string) (io.ReadCloser, error) {
	if l.exports[path] == "" {
		return nil, fmt.Errorf("no export data of %s", path)
	}
	return os.Open(l.exports[path])
}

// load returns the files of a folder and what is known of their types.
func (l *loader) load(path, dir string, names []string) ([]*ast.File, *types.Info, error) {
	files := make([]*ast.File, 0, len(names))
	for _, name := range names {
		f, err := parser.ParseFile(l.fset, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return files, nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(l.fset, "gc", l.lookup)}
	_, err := conf.Check(path, l.fset, files, info)
	return files, info, err
}

// scanPackage returns the findings in a package: those that need types in the
// files of this build, the others also in files that build tags leave out. The
// error says that types are not known, so that findings may be missing.
func (l *loader) scanPackage(p *pkg) ([]finding, error) {
	files, info, failed := l.load(p.ImportPath, p.Dir, p.GoFiles)
	if failed != nil {
		info = nil // it does not compile: at least what is plain to see
	}
	var found []finding
	for _, f := range files {
		found = append(found, scan(l.fset, f, info)...)
	}
	for _, name := range p.IgnoredGoFiles {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(l.fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		found = append(found, scan(l.fset, f, nil)...)
	}
	return found, failed
}

// pardon takes from the findings what exempt files may use, and notes what was
// needed.
func pardon(found []finding, dir string, exempt map[string]exemption, needed map[string]bool) []finding {
	return slices.DeleteFunc(found, func(f finding) bool {
		name, err := filepath.Rel(dir, f.pos.Filename)
		if err != nil || !slices.Contains(exempt[name].uses, f.what) {
			return false
		}
		needed[name+" "+f.what] = true
		return true
	})
}

// The engine blocks, waits, draws and orders through sched only.
func TestEngineRunsInASimulation(t *testing.T) {
	dir := root(t)
	needed := map[string]bool{}
	for _, tags := range []string{"", "invariants"} {
		var paths []string
		for _, name := range engine {
			if matches, err := filepath.Glob(filepath.Join(dir, name, "*.go")); err == nil && len(matches) > 0 {
				paths = append(paths, "./"+name)
			}
		}
		l := newLoader(t, append([]string{"-tags=" + tags}, paths...)...)
		for _, p := range goList(t, append([]string{"-tags=" + tags}, paths...)...) {
			found, err := l.scanPackage(p)
			if err != nil {
				t.Errorf("tags %q: %s: %v", tags, p.ImportPath, err)
			}
			for _, f := range pardon(found, dir, exempt, needed) {
				t.Errorf("tags %q: %v", tags, f)
			}
		}
	}
	for name, e := range exempt {
		if e.why == "" {
			t.Errorf("the exemption of %s has no reason", name)
		}
		for _, what := range e.uses {
			if !needed[name+" "+what] {
				t.Errorf("%s is exempt for %s and does not need it", name, what)
			}
		}
	}
}

var wantComment = regexp.MustCompile(`// want "([^"]+)"`)

// The scanner finds what is planted in testdata, there and nowhere else.
func TestPlantedSources(t *testing.T) {
	sources, err := filepath.Glob("testdata/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources", err)
	}
	l := newLoader(t, "context", "maps", "math/rand", "math/rand/v2", "runtime", "slices", "sync", "sync/atomic", "time")
	for _, source := range sources {
		t.Run(filepath.Base(source), func(t *testing.T) {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			want := map[int]string{}
			for i, line := range strings.Split(string(text), "\n") {
				if m := wantComment.FindStringSubmatch(line); m != nil {
					want[i+1] = m[1]
				}
			}
			files, info, err := l.load("planted", ".", []string{source})
			if err != nil {
				t.Fatal(err)
			}
			got := map[int][]string{}
			for _, f := range scan(l.fset, files[0], info) {
				got[f.pos.Line] = append(got[f.pos.Line], f.what)
			}
			for line, what := range want {
				if !slices.Contains(got[line], what) {
					t.Errorf("line %d: want %q, got %q", line, what, got[line])
				}
			}
			for line, what := range got {
				if want[line] == "" {
					t.Errorf("line %d: found %q", line, what)
				}
			}
		})
	}
}

func TestExemptionsAreForWhatTheyName(t *testing.T) {
	found := []finding{
		{token.Position{Filename: "/m/bdev/ring.go"}, "go", ""},
		{token.Position{Filename: "/m/bdev/ring.go"}, "chan", ""},
		{token.Position{Filename: "/m/bdev/drive.go"}, "go", ""},
	}
	needed := map[string]bool{}
	left := pardon(found, "/m", map[string]exemption{"bdev/ring.go": {uses: []string{"go", "sync"}}}, needed)
	if len(left) != 2 || left[0].what != "chan" || left[1].pos.Filename != "/m/bdev/drive.go" {
		t.Errorf("left %v", left)
	}
	if len(needed) != 1 || !needed["bdev/ring.go go"] {
		t.Errorf("needed %v", needed)
	}
}
