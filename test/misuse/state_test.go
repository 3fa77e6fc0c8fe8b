package misuse

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
)

// table is calls by states. Each cell says what the call gives in the state:
// "ok", or the error's code and the invariant that it follows from, or "-", where
// there is nothing to be said. The first line names the calls.
type table struct {
	states map[string]func(w *world)
	calls  map[string]func(w *world) error
	cells  string
	served bool // it is about a daemon only
}

type cell struct{ state, call, want, by string }

// parse reads the cells, and checks that every state and call has its own.
func (x *table) parse(t *testing.T) []cell {
	t.Helper()
	var cells []cell
	var calls []string
	seen := make(map[string]bool)
	for line := range strings.Lines(x.cells) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
			continue
		case calls == nil:
			calls = f
			continue
		case len(f) != len(calls)+1:
			t.Fatalf("%d cells for %d calls: %s", len(f)-1, len(calls), line)
		case x.states[f[0]] == nil:
			t.Fatalf("no state %q", f[0])
		}
		seen[f[0]] = true
		for i, s := range f[1:] {
			want, by, _ := strings.Cut(s, "/")
			if want == "-" {
				continue
			}
			if want != "ok" && by == "" {
				t.Fatalf("%s %s: %s follows from nothing", f[0], calls[i], want)
			}
			cells = append(cells, cell{f[0], calls[i], want, by})
		}
	}
	for s := range x.states {
		if !seen[s] {
			t.Fatalf("state %q has no line", s)
		}
	}
	for c := range x.calls {
		if !slices.Contains(calls, c) {
			t.Fatalf("call %q has no column", c)
		}
	}
	return cells
}

// harmless are the calls that leave the state what it is.
var harmless = map[string]bool{"info": true, "find": true, "read": true, "sync": true, "seek": true, "next": true}

// run makes a world for each state, in which all calls that are refused must
// leave everything as it was, and then for each call that is not, unless it is
// harmless.
func (x *table) run(t *testing.T) {
	t.Helper()
	cells := x.parse(t)
	each(t, func(t *testing.T, b backend) {
		if x.served && b.name == inProcessName {
			return
		}
		for _, state := range slices.Sorted(maps.Keys(x.states)) {
			b.world(t, func(w *world) { x.refused(w, state, cells) })
			for _, c := range cells {
				if c.state == state && c.want == "ok" && !harmless[c.call] {
					b.world(t, func(w *world) { x.done(w, c) })
				}
			}
		}
	})
}

func (x *table) done(w *world, c cell) {
	w.t.Helper()
	x.states[c.state](w)
	x.do(w, c)
}

func (x *table) do(w *world, c cell) {
	w.t.Helper()
	if err := x.calls[c.call](w); err != nil {
		w.t.Errorf("%s: %s: %v; want no error", c.state, c.call, err)
	}
}

func (x *table) refused(w *world, state string, cells []cell) {
	w.t.Helper()
	x.states[state](w)
	looks := !strings.HasPrefix(state, "deactivated") // there is something to look at
	var before *snapshot
	if looks {
		before = w.snapshot()
	}
	for _, c := range cells {
		if c.state != state || c.want == "ok" {
			continue
		}
		what := fmt.Sprintf("%s: %s", c.state, c.call)
		if err := x.calls[c.call](w); !isOne(err, w.codes(w.t, c.want)) {
			w.t.Errorf("%s: %v; want %s (%s)", what, err, c.want, c.by)
		}
		if looks && !w.unchanged(before, what) {
			before = w.snapshot()
		}
	}
	for _, c := range cells {
		if c.state == state && c.want == "ok" && harmless[c.call] {
			x.do(w, c)
		}
	}
}

// readOnly turns the pool read-only.
func (w *world) readOnly() {
	w.t.Helper()
	w.disks.fail(bdev.OpWrite)
	if err := w.SetRoots(w.ctx, []api.Root{{Name: "lost", ID: w.root()}}); !errors.Is(err, api.EUNKNOWN) {
		w.t.Fatalf("a failed change of the metadata: %v", err)
	}
	w.disks.heal()
}

// root returns the id of a committed mblock.
func (w *world) root() (id layout.ObjectID) {
	w.t.Helper()
	roots, err := w.Roots(w.ctx)
	w.ok(err)
	for _, r := range roots {
		if r.Name == "data" {
			return r.ID
		}
	}
	w.t.Fatal("the root is gone")
	return 0
}

func (w *world) uncommitted() {
	w.m = w.mblock(api.AllocOptions{Capacity: 16384}, content(3, 4096))
	w.id = w.m.ID()
}

func (w *world) committed() {
	w.uncommitted()
	w.ok(w.m.Commit(w.ctx))
}

func (w *world) shared(o api.Object) {
	_, err := o.Get(w.ctx)
	w.ok(err)
}

// leaving starts a delete that hangs until the world ends.
func (w *world) leaving(o api.Object) {
	held, release := w.disks.hold()
	done := make(chan error, 1)
	go func() { done <- o.Delete(w.ctx) }()
	<-held
	// It may have been another's write: then the delete's hangs, too, when it
	// has come so far.
	for {
		if _, err := o.Info(w.ctx); errors.Is(err, api.EBADF) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.later(func() {
		release()
		w.ok(<-done)
	})
}

// A put while the handle is being deleted may be taken: it counts if the delete
// fails.
//
// proves S10 S11 S12 S13 S15 S30 S31 S40
func TestMblockStates(t *testing.T) {
	t.Parallel()
	x := table{
		states: map[string]func(w *world){
			"uncommitted": (*world).uncommitted,
			"ragged": func(w *world) {
				w.uncommitted()
				_, err := w.m.Write(w.ctx, content(4, 100))
				w.ok(err)
			},
			"poisoned": func(w *world) {
				w.uncommitted()
				w.disks.fail(bdev.OpWrite)
				if _, err := w.m.Write(w.ctx, content(4, 4096)); err == nil {
					w.t.Fatal("a write that the drive failed succeeds")
				}
				w.disks.heal()
			},
			"uncommitted,shared": func(w *world) { w.uncommitted(); w.shared(w.m) },
			"committed":          (*world).committed,
			"committed,shared":   func(w *world) { w.committed(); w.shared(w.m) },
			"deleting":           func(w *world) { w.committed(); w.leaving(w.m) },
			"deleted":            func(w *world) { w.committed(); w.ok(w.m.Delete(w.ctx)) },
			"aborted":            func(w *world) { w.uncommitted(); w.ok(w.m.Abort(w.ctx)) },
			"put":                func(w *world) { w.committed(); w.ok(w.m.Put()) },
			"readonly,uncommitted": func(w *world) {
				w.uncommitted()
				w.readOnly()
			},
			"readonly,committed": func(w *world) { w.committed(); w.readOnly() },
			"deactivated":        func(w *world) { w.committed(); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"info":   func(w *world) error { _, err := w.m.Info(w.ctx); return err },
			"get":    func(w *world) error { _, err := w.m.Get(w.ctx); return err },
			"put":    func(w *world) error { return w.m.Put() },
			"commit": func(w *world) error { return w.m.Commit(w.ctx) },
			"many":   func(w *world) error { return w.CommitMany(w.ctx, []api.Object{w.m}, nil) },
			"abort":  func(w *world) error { return w.m.Abort(w.ctx) },
			"delete": func(w *world) error { return w.m.Delete(w.ctx) },
			"write":  func(w *world) error { _, err := w.m.Write(w.ctx, content(5, 4096)); return err },
			"read":   func(w *world) error { _, err := w.m.ReadAtContext(w.ctx, make([]byte, 4096), 0); return err },
			"find":   func(w *world) error { _, err := w.Mblock(w.ctx, w.id); return err },
			"realloc": func(w *world) error {
				_, err := w.ReallocMblock(w.ctx, w.id, api.AllocOptions{Capacity: 100})
				return err
			},
			"root": func(w *world) error { return w.SetRoots(w.ctx, []api.Root{{Name: "x", ID: w.id}}) },
		},
		cells: `
			                      info      get        put       commit     many       abort      delete     write      read      find       realloc    root
			uncommitted           ok        ok         ok        ok         ok         ok         ESTATE/S15 ok         ok        ok         EEXIST/S10 ENOENT/S9
			ragged                ok        ok         ok        ok         ok         ok         ESTATE/S15 ESTATE/S11 ok        ok         EEXIST/S10 ENOENT/S9
			poisoned              ok        ok         ok        EIO/S11    EIO/S11    ok         ESTATE/S15 EIO/S11    EIO/S40   ok         EEXIST/S10 ENOENT/S9
			uncommitted,shared    ok        ok         ok        ok         ok         EBUSY/S15  ESTATE/S15 ok         ok        ok         EEXIST/S10 ENOENT/S9
			committed             ok        ok         ok        ok         ok         ESTATE/S12 ok         ESTATE/S11 ok        ok         EEXIST/S10 ok
			committed,shared      ok        ok         ok        ok         ok         ESTATE/S12 EBUSY/S15  ESTATE/S11 ok        ok         EEXIST/S10 ok
			deleting              EBADF/S31 EBADF/S31  -         EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S15 EEXIST/S10 -
			deleted               EBADF/S31 EBADF/S31  EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S15 ok         ENOENT/S9
			aborted               EBADF/S31 EBADF/S31  EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ENOENT/S12 ok         ENOENT/S9
			put                   EBADF/S31 EBADF/S31  EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31 ok         EEXIST/S10 ok
			readonly,uncommitted  ok        ok         ok        EROFS/S40  EROFS/S40  ok         ESTATE/S15 EROFS/S40  ok        ok         EROFS/S40  ENOENT/S9
			readonly,committed    ok        ok         ok        ok         ok         ESTATE/S12 EROFS/S40  ESTATE/S11 ok        ok         EROFS/S40  EROFS/S40
			deactivated           gone/S31  gone/S31   ok        gone/S31   gone/S31   gone/S31   gone/S31   gone/S31   gone/S31  gone/S31   gone/S31   gone/S31
		`,
	}
	x.run(t)
}
