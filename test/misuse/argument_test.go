package misuse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// line is a call with a wrong argument.
type line struct {
	name string
	call func(w *world, x *things) error
	want string
	by   string
}

// things are what calls with wrong arguments are made on.
type things struct {
	m       api.Mblock // uncommitted, capacity 8192, 4096 written
	full    api.Mblock // uncommitted, all of its capacity written
	done    api.Mblock // committed, 9000 bytes
	l       api.Mlog   // committed
	a       api.Appender
	r       api.LogReader
	c       api.MDC
	mdc     layout.ObjectID
	foreign api.Object // of another pool
}

func (w *world) things() *things {
	w.t.Helper()
	x := &things{}
	x.m = w.mblock(api.AllocOptions{Capacity: 8192}, content(1, 4096))
	x.full = w.mblock(api.AllocOptions{Capacity: 4096}, content(1, 4096))
	x.done = w.mblock(api.AllocOptions{Capacity: 9000}, content(1, 9000))
	w.ok(x.done.Commit(w.ctx))
	x.a = w.appending()
	x.l = w.l
	x.r = w.reading()
	var err error
	x.mdc, err = w.CreateMDC(w.ctx, api.AllocOptions{Capacity: 64 << 10})
	w.ok(err)
	x.c, err = w.OpenMDC(w.ctx, x.mdc)
	w.ok(err)
	w.later(func() { _ = x.c.Close(w.ctx) })
	w.a, w.r, w.c = x.a, x.r, x.c
	other := w.other()
	x.foreign, err = other.AllocMblock(w.ctx, api.AllocOptions{Capacity: 100})
	w.ok(err)
	w.later(func() { _ = x.foreign.Put() })
	return x
}

func alloc(o api.AllocOptions) func(w *world, _ *things) error {
	return func(w *world, _ *things) error { _, err := w.AllocMblock(w.ctx, o); return err }
}

func allocLog(o api.AllocOptions) func(w *world, _ *things) error {
	return func(w *world, _ *things) error { _, err := w.AllocMlog(w.ctx, o); return err }
}

func allocMDC(o api.AllocOptions) func(w *world, _ *things) error {
	return func(w *world, _ *things) error { _, err := w.CreateMDC(w.ctx, o); return err }
}

func root(name string) func(w *world, x *things) error {
	return func(w *world, x *things) error {
		return w.SetRoots(w.ctx, []api.Root{{Name: name, ID: x.done.ID()}})
	}
}

func owner(name string, parent uint32) func(w *world, x *things) error {
	return func(w *world, _ *things) error { _, err := w.AddOwner(w.ctx, name, parent); return err }
}

func readAt(n int, off int64) func(w *world, x *things) error {
	return func(w *world, x *things) error {
		_, err := x.done.ReadAtContext(w.ctx, make([]byte, n), off)
		return end(err)
	}
}

func roots(n int, x *things) []api.Root {
	list := make([]api.Root, n)
	for i := range list {
		list[i] = api.Root{Name: fmt.Sprintf("r%d", i), ID: x.done.ID()}
	}
	return list
}

func id(k layout.Kind, n uint64) layout.ObjectID { return layout.NewObjectID(k, n) }

func find(id layout.ObjectID) func(w *world, x *things) error {
	return func(w *world, _ *things) error { _, err := w.Mblock(w.ctx, id); return err }
}

func findLog(id layout.ObjectID) func(w *world, x *things) error {
	return func(w *world, _ *things) error { _, err := w.Mlog(w.ctx, id); return err }
}

func realloc(id layout.ObjectID) func(w *world, x *things) error {
	return func(w *world, _ *things) error {
		_, err := w.ReallocMblock(w.ctx, id, api.AllocOptions{Capacity: 100})
		return err
	}
}

func many(objects func(x *things) []api.Object, list func(x *things) []api.Root) func(w *world, x *things) error {
	return func(w *world, x *things) error {
		var r []api.Root
		if list != nil {
			r = list(x)
		}
		return w.CommitMany(w.ctx, objects(x), r)
	}
}

func only(o func(x *things) api.Object, n int) func(x *things) []api.Object {
	return func(x *things) []api.Object {
		var list []api.Object
		for range n {
			list = append(list, o(x))
		}
		return list
	}
}

func named(name string, id layout.ObjectID) func(x *things) []api.Root {
	return func(*things) []api.Root { return []api.Root{{Name: name, ID: id}} }
}

var (
	noSuchBlock = id(layout.KindMblock, 999_999)
	noSuchLog   = id(layout.KindMlog, 999_999)
	noKind      = layout.ObjectID(9<<56 | 1)
	newBlock    = func(x *things) api.Object { return x.m }
)

var arguments = []line{
	{"alloc: negative", alloc(api.AllocOptions{Capacity: -1}), "EINVAL", "S10"},
	{"alloc: least", alloc(api.AllocOptions{Capacity: math.MinInt64}), "EINVAL", "S10"},
	{"alloc: over the limit", alloc(api.AllocOptions{Capacity: api.MaxMblockCapacity + 1}), "EINVAL", "S10"},
	{"alloc: most", alloc(api.AllocOptions{Capacity: math.MaxInt64}), "EINVAL", "S10"},
	{"alloc: more than there is", alloc(api.AllocOptions{Capacity: diskBytes}), "ENOSPC", "S10"},
	{"alloc: no such owner", alloc(api.AllocOptions{Capacity: 1, Owner: 99}), "ENOENT", "S10"},
	{"alloc: no such owner", alloc(api.AllocOptions{Capacity: 1, Owner: math.MaxUint32}), "ENOENT", "S10"},
	{"alloc: absent class", alloc(api.AllocOptions{Capacity: 1, Class: api.ClassStaging}), "ENOENT", "S10"},
	{"alloc: no class", alloc(api.AllocOptions{Capacity: 1, Class: 77}), "ENOENT|EINVAL", "S10"},
	{"alloc: no class, fallback", alloc(api.AllocOptions{Capacity: 1, Class: 77, Fallback: true}), "ENOENT|EINVAL", "S10"},
	{"alloc log: 0", allocLog(api.AllocOptions{}), "EINVAL", "S20"},
	{"alloc log: negative", allocLog(api.AllocOptions{Capacity: -1}), "EINVAL", "S20"},
	{"alloc log: most", allocLog(api.AllocOptions{Capacity: math.MaxInt64}), "EINVAL", "S20"},
	{"alloc log: more than there is", allocLog(api.AllocOptions{Capacity: diskBytes}), "ENOSPC", "S41"},
	{"alloc log: no such owner", allocLog(api.AllocOptions{Capacity: 1, Owner: 99}), "ENOENT", "S10"},
	{"create mdc: 0", allocMDC(api.AllocOptions{}), "EINVAL", "S20"},
	{"create mdc: negative", allocMDC(api.AllocOptions{Capacity: -5}), "EINVAL", "S20"},
	{"create mdc: one log fits", allocMDC(api.AllocOptions{Capacity: diskBytes / 2}), "ENOSPC", "S41"},
	{"create mdc: no such owner", allocMDC(api.AllocOptions{Capacity: 1, Owner: 99}), "ENOENT", "S10"},

	{"realloc: 0", realloc(0), "EINVAL", "S10"},
	{"realloc: a log's id", realloc(id(layout.KindMlog, 50)), "EINVAL", "S10"},
	{"realloc: no kind", realloc(noKind), "EINVAL", "S10"},
	{"realloc: the last id", realloc(id(layout.KindMblock, layout.MaxCounter)), "EINVAL", "S10"},

	{"find: 0", find(0), "EINVAL", "S31"},
	{"find: no kind", find(noKind), "EINVAL", "S31"},
	{"find: a log's id", find(noSuchLog), "EINVAL", "S31"},
	{"find: never given", find(noSuchBlock), "ENOENT", "S31"},
	{"find log: 0", findLog(0), "EINVAL", "S31"},
	{"find log: no kind", findLog(noKind), "EINVAL", "S31"},
	{"find log: an mblock's id", findLog(noSuchBlock), "EINVAL", "S31"},
	{"find log: never given", findLog(noSuchLog), "ENOENT", "S31"},
	{"open mdc: 0", func(w *world, _ *things) error { _, err := w.OpenMDC(w.ctx, 0); return err }, "EINVAL", "S26"},
	{"open mdc: an mblock's id", func(w *world, _ *things) error { _, err := w.OpenMDC(w.ctx, noSuchBlock); return err }, "EINVAL", "S26"},
	{"open mdc: never given", func(w *world, _ *things) error { _, err := w.OpenMDC(w.ctx, noSuchLog); return err }, "ENOENT", "S26"},
	{"delete mdc: 0", func(w *world, _ *things) error { return w.DeleteMDC(w.ctx, 0) }, "EINVAL", "S26"},
	{"delete mdc: never given", func(w *world, _ *things) error { return w.DeleteMDC(w.ctx, noSuchLog) }, "ENOENT", "S26"},
	{"delete mdc: open", func(w *world, x *things) error { return w.DeleteMDC(w.ctx, x.mdc) }, "EBUSY", "S24"},

	{"write: past the capacity", func(w *world, x *things) error { _, err := x.m.Write(w.ctx, make([]byte, 4097)); return err }, "EFBIG", "S11"},
	{"write: far past it", func(w *world, x *things) error { _, err := x.m.Write(w.ctx, make([]byte, 9<<20)); return err }, "EFBIG", "S11"},
	{"write: full", func(w *world, x *things) error { _, err := x.full.Write(w.ctx, make([]byte, 1)); return err }, "EFBIG", "S11"},
	{"read: negative", readAt(1, -1), "EINVAL", "S13"},
	{"read: negative, long", readAt(1<<20, -4096), "EINVAL", "S13"},
	{"read: least", readAt(1, math.MinInt64), "EINVAL", "S13"},

	{"append: too long", func(w *world, x *things) error {
		_, err := x.a.Append(w.ctx, make([]byte, api.MaxRecord+1), true)
		return err
	}, "EINVAL", "S20"},
	{"append: longer than the log", func(w *world, x *things) error {
		_, err := x.a.Append(w.ctx, make([]byte, api.MaxRecord), true)
		return err
	}, "EFBIG", "S24"},
	{"mdc append: too long", func(w *world, x *things) error { return x.c.Append(w.ctx, make([]byte, api.MaxRecord+1), true) }, "EINVAL", "S20"},
	{"read record: no room", func(w *world, x *things) error { _, err := x.r.Next(w.ctx, nil); return err }, "EOVERFLOW", "S24"},
	{"seek: past the end", func(w *world, x *things) error { return x.r.Seek(w.ctx, 4) }, "ENOENT", "S20"},

	{"root: empty name", root(""), "EINVAL", "S9"},
	{"root: 65 bytes", root(strings.Repeat("x", 65)), "EINVAL", "S9"},
	{"root: 300 bytes", root(strings.Repeat("x", 300)), "EINVAL", "S9"},
	{"root: no text", root("a\x00b"), "EINVAL", "S9"},
	{"root: no UTF-8", root("a\xffb"), "EINVAL", "S9"},
	{"root: a line end", root("a\nb"), "EINVAL", "S9"},
	{"root: the system's", root(".quota"), "EPERM", "S9"},
	{"root: no object", func(w *world, _ *things) error { return w.SetRoots(w.ctx, named("x", noSuchBlock)(nil)) }, "ENOENT", "S9"},
	{"root: uncommitted", func(w *world, x *things) error { return w.SetRoots(w.ctx, named("x", x.m.ID())(nil)) }, "ENOENT", "S9"},
	{"root: unset what is not", func(w *world, _ *things) error { return w.SetRoots(w.ctx, named("x", 0)(nil)) }, "ENOENT", "S9"},
	{"root: one of two", func(w *world, x *things) error {
		return w.SetRoots(w.ctx, []api.Root{{Name: "good", ID: x.done.ID()}, {Name: "bad", ID: noSuchBlock}})
	}, "ENOENT", "S9"},
	{"root: 1025 at once", func(w *world, x *things) error { return w.SetRoots(w.ctx, roots(api.MaxRoots+1, x)) }, "EINVAL", "S9"},
	{"root: 1025 in all", func(w *world, x *things) error { return w.SetRoots(w.ctx, roots(api.MaxRoots, x)) }, "ENOSPC", "S9"},

	{"owner: empty name", owner("", 0), "EINVAL", "S44"},
	{"owner: 64 bytes", owner(strings.Repeat("x", 64), 0), "EINVAL", "S44"},
	{"owner: 300 bytes", owner(strings.Repeat("x", 300), 0), "EINVAL", "S44"},
	{"owner: no text", owner("\x01", 0), "EINVAL", "S44"},
	{"owner: a path", owner("a/b", 0), "EINVAL", "S44"},
	{"owner: there already", owner("tenant", 0), "EEXIST", "S44"},
	{"owner: no parent", owner("x", 99), "ENOENT", "S44"},
	{"owner: no parent", owner("x", math.MaxUint32), "ENOENT", "S44"},

	{"commit many: twice the same", many(only(newBlock, 2), nil), "EINVAL", "S12"},
	{"commit many: 1025", many(only(newBlock, api.MaxCommitMany+1), nil), "EINVAL", "S12"},
	{"commit many: 1025 roots", many(only(newBlock, 1), func(x *things) []api.Root { return roots(api.MaxRoots+1, x) }), "EINVAL", "S12"},
	{"commit many: too many roots", many(only(newBlock, 1), func(x *things) []api.Root { return roots(api.MaxRoots, x) }), "ENOSPC", "S12"},
	{"commit many: a bad root", many(only(newBlock, 1), named("x", noSuchBlock)), "ENOENT", "S12"},
	{"commit many: the system's root", many(only(newBlock, 1), named(".x", 0)), "EPERM", "S12"},
	{"commit many: another pool's", many(func(x *things) []api.Object { return []api.Object{x.m, x.foreign} }, nil), "EBADF|EINVAL", "S31"},
	{"commit many: of no pool", many(func(x *things) []api.Object { return []api.Object{x.m, stranger{}} }, nil), "EBADF|EINVAL", "S31"},
}

// stranger is an object of nobody.
type stranger struct{ api.Object }

func (stranger) ID() layout.ObjectID { return noSuchBlock }

// proves S9 S10 S11 S12 S13 S20 S24 S41
func TestArguments(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b backend) {
		b.world(t, func(w *world) {
			x := w.things()
			before := w.snapshot()
			for _, c := range arguments {
				if err := c.call(w, x); !isOne(err, w.codes(t, c.want)) {
					t.Errorf("%s: %v; want %s (%s)", c.name, err, c.want, c.by)
				}
				if !w.unchanged(before, c.name) {
					before = w.snapshot()
				}
			}
		})
	})
}

// calls are all calls that take a context, each good but for that.
func calls(w *world, x *things) map[string]func(ctx context.Context) error {
	rec := content(1, 100)
	return map[string]func(ctx context.Context) error{
		"info": func(ctx context.Context) error { _, err := w.Info(ctx); return err },
		"alloc": func(ctx context.Context) error {
			_, err := w.AllocMblock(ctx, api.AllocOptions{Capacity: 1})
			return err
		},
		"realloc": func(ctx context.Context) error {
			_, err := w.ReallocMblock(ctx, noSuchBlock, api.AllocOptions{})
			return err
		},
		"find":          func(ctx context.Context) error { _, err := w.Mblock(ctx, x.done.ID()); return err },
		"alloc log":     func(ctx context.Context) error { _, err := w.AllocMlog(ctx, api.AllocOptions{Capacity: 1}); return err },
		"find log":      func(ctx context.Context) error { _, err := w.Mlog(ctx, x.l.ID()); return err },
		"create mdc":    func(ctx context.Context) error { _, err := w.CreateMDC(ctx, api.AllocOptions{Capacity: 1}); return err },
		"open mdc":      func(ctx context.Context) error { _, err := w.OpenMDC(ctx, x.mdc); return err },
		"delete mdc":    func(ctx context.Context) error { return w.DeleteMDC(ctx, x.mdc) },
		"commit many":   func(ctx context.Context) error { return w.CommitMany(ctx, []api.Object{x.m}, nil) },
		"set roots":     func(ctx context.Context) error { return w.SetRoots(ctx, named("x", x.done.ID())(nil)) },
		"roots":         func(ctx context.Context) error { _, err := w.Roots(ctx); return err },
		"add owner":     func(ctx context.Context) error { _, err := w.AddOwner(ctx, "x", 0); return err },
		"owners":        func(ctx context.Context) error { _, err := w.Owners(ctx); return err },
		"object info":   func(ctx context.Context) error { _, err := x.m.Info(ctx); return err },
		"get":           func(ctx context.Context) error { _, err := x.m.Get(ctx); return err },
		"get log":       func(ctx context.Context) error { _, err := x.l.Get(ctx); return err },
		"commit":        func(ctx context.Context) error { return x.m.Commit(ctx) },
		"abort":         func(ctx context.Context) error { return x.m.Abort(ctx) },
		"delete":        func(ctx context.Context) error { return x.done.Delete(ctx) },
		"write":         func(ctx context.Context) error { _, err := x.m.Write(ctx, make([]byte, 4096)); return err },
		"long write":    func(ctx context.Context) error { _, err := x.m.Write(ctx, make([]byte, 1<<20)); return err },
		"read":          func(ctx context.Context) error { _, err := x.done.ReadAtContext(ctx, make([]byte, 10), 0); return err },
		"open append":   func(ctx context.Context) error { _, err := x.l.OpenAppend(ctx); return err },
		"open read":     func(ctx context.Context) error { _, err := x.l.OpenRead(ctx); return err },
		"erase":         func(ctx context.Context) error { return x.l.Erase(ctx, 0) },
		"append":        func(ctx context.Context) error { _, err := x.a.Append(ctx, rec, false); return err },
		"append, sync":  func(ctx context.Context) error { _, err := x.a.Append(ctx, rec, true); return err },
		"sync":          func(ctx context.Context) error { return x.a.Sync(ctx) },
		"next":          func(ctx context.Context) error { _, err := x.r.Next(ctx, make([]byte, 1000)); return err },
		"seek":          func(ctx context.Context) error { return x.r.Seek(ctx, 2) },
		"mdc append":    func(ctx context.Context) error { return x.c.Append(ctx, rec, true) },
		"mdc sync":      func(ctx context.Context) error { return x.c.Sync(ctx) },
		"mdc read":      func(ctx context.Context) error { _, err := x.c.OpenRead(ctx); return err },
		"compact start": func(ctx context.Context) error { return x.c.CompactStart(ctx) },
		"objects": func(ctx context.Context) error {
			for _, err := range w.Objects(ctx, api.Filter{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// proves S46: a call whose time is over before it begins is not done, and says
// so. One that needs no time may be done, if it changes nothing.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b backend) {
		b.world(t, func(w *world) {
			x := w.things()
			before := w.snapshot()
			expired, cancel := context.WithDeadline(w.ctx, time.Unix(1, 0))
			defer cancel()
			cancelled, cancel := context.WithCancel(w.ctx)
			cancel()
			for name, call := range calls(w, x) {
				for _, c := range []struct {
					ctx  context.Context
					code api.Code
				}{{expired, api.ETIMEDOUT}, {cancelled, api.ECANCELED}} {
					what := fmt.Sprintf("%s with its context at its end (%v)", name, c.code)
					err := call(c.ctx)
					if err != nil && (!isOne(err, []api.Code{c.code}) || !errors.Is(err, c.ctx.Err())) {
						t.Errorf("%s: %v; want %v", what, err, c.code)
					}
					if !w.unchanged(before, what) {
						before = w.snapshot()
					}
				}
			}
		})
	})
}
