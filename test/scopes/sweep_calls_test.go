package scopes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// stage is what a call is made on: a connection of its own, whose limits are swept, and
// what the pool has for all.
type stage struct {
	t     *testing.T
	c     *client.Conn
	p     api.Pool // nil: the call opens it
	admin *client.Conn
	mblock, log,
	container layout.ObjectID
	n     int    // of the trial: for names
	aside string // a drive with another pool
}

var (
	few  = bytes.Repeat([]byte("few"), 1000)
	many = bytes.Repeat([]byte("many"), 60_000)
)

// sweptCall is a public call. prepare makes what it is made on and returns the call, which may
// be repeated after an error, and what is looked at after it has succeeded.
type sweptCall struct {
	name    string
	prepare func(s *stage) (call, after func(ctx context.Context) error)
}

// must fails the test at an error: nothing is refused yet, or any more.
func must[T any](s *stage) func(v T, err error) T {
	return func(v T, err error) T {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
		return v
	}
}

func (s *stage) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// fresh is an uncommitted mblock.
func (s *stage) fresh() api.Mblock {
	return must[api.Mblock](s)(s.p.AllocMblock(s.t.Context(), api.AllocOptions{Capacity: 1 << 20}))
}

// freshLog is a committed log, with some records.
func (s *stage) freshLog() (api.Mlog, api.Appender) {
	ctx := s.t.Context()
	l := must[api.Mlog](s)(s.p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20}))
	s.ok(l.Commit(ctx))
	return l, must[api.Appender](s)(l.OpenAppend(ctx))
}

func (s *stage) old() api.Mblock {
	return must[api.Mblock](s)(s.p.Mblock(s.t.Context(), s.mblock))
}

func (s *stage) reader() api.LogReader {
	l := must[api.Mlog](s)(s.p.Mlog(s.t.Context(), s.log))
	return must[api.LogReader](s)(l.OpenRead(s.t.Context()))
}

// plain is a call without anything to prepare or to look at.
func plain(name string, call func(ctx context.Context, s *stage) error) sweptCall {
	return sweptCall{name, func(s *stage) (a, b func(context.Context) error) {
		return func(ctx context.Context) error { return call(ctx, s) }, nothing
	}}
}

func nothing(context.Context) error { return nil }

func length(o api.Object, want int) func(context.Context) error {
	return func(ctx context.Context) error {
		info, err := o.Info(ctx)
		if err == nil && info.Length != int64(want) {
			err = fmt.Errorf("it has %d bytes, want %d", info.Length, want)
		}
		return err
	}
}

func writes(name string, data []byte) sweptCall {
	return sweptCall{name, func(s *stage) (a, b func(context.Context) error) {
		m, done := s.fresh(), 0
		return func(ctx context.Context) error {
			n, err := m.Write(ctx, data[done:])
			done += n
			return err
		}, length(m, len(data))
	}}
}

func appends(name string, data []byte, sync bool) sweptCall {
	return sweptCall{name, func(s *stage) (a, b func(context.Context) error) {
		_, to := s.freshLog()
		return func(ctx context.Context) error { return errOf(to.Append(ctx, data, sync)) }, func(context.Context) error {
			if n, size := to.Len(); n != 1 || size != int64(len(data)) {
				return fmt.Errorf("it has %d records of %d bytes", n, size)
			}
			return nil
		}
	}}
}

func reads(name string, n int) sweptCall {
	return sweptCall{name, func(s *stage) (a, b func(context.Context) error) {
		m, p := s.old(), make([]byte, n)
		return func(ctx context.Context) error { return errOf(m.ReadAtContext(ctx, p, 0)) }, func(context.Context) error {
			if !bytes.Equal(p, many[:n]) {
				return errors.New("it has read something else")
			}
			return nil
		}
	}}
}

func errOf[T any](_ T, err error) error { return err }

// sweptCalls are those of a connection and of what it opens.
func sweptCalls() []sweptCall {
	return append([]sweptCall{
		plain("version", func(ctx context.Context, s *stage) error { return errOf(s.c.Version(ctx)) }),
		plain("stat", func(ctx context.Context, s *stage) error { return errOf(s.c.Stat(ctx, "swept")) }),
		plain("pools", func(ctx context.Context, s *stage) error { return errOf(s.c.Pools(ctx)) }),
		plain("clients", func(ctx context.Context, s *stage) error { return errOf(s.c.Clients(ctx, 0)) }),
		plain("set pool", func(ctx context.Context, s *stage) error {
			label := fmt.Sprint(s.n)
			return s.c.SetPool(ctx, "swept", api.PoolSettings{Label: &label})
		}),
		plain("scrub", func(ctx context.Context, s *stage) error {
			return errOf(s.c.ScrubPool(ctx, "swept", api.ScrubCursor{}, 1<<20))
		}),
		plain("deactivate, activate", func(ctx context.Context, s *stage) error {
			if err := s.c.DeactivatePool(ctx, "aside"); err != nil && !errors.Is(err, api.ENOENT) {
				return err
			}
			return errOf(s.c.ActivatePool(ctx, "aside", []string{s.aside}, api.ActivateOptions{}))
		}),
		plain("open pool", func(ctx context.Context, s *stage) error { return errOf(s.c.OpenPool(ctx, "swept")) }),
		plain("pool info", func(ctx context.Context, s *stage) error { return errOf(s.p.Info(ctx)) }),
		plain("alloc mblock", func(ctx context.Context, s *stage) error {
			return errOf(s.p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
		}),
		plain("realloc mblock", func(ctx context.Context, s *stage) error {
			return errOf(s.p.ReallocMblock(ctx, layout.NewObjectID(layout.KindMblock, uint64(1<<30+s.n)), api.AllocOptions{}))
		}),
		plain("put mblock, few bytes", func(ctx context.Context, s *stage) error {
			return errOf(s.p.PutMblock(ctx, api.AllocOptions{}, few))
		}),
		plain("put mblock, many bytes", func(ctx context.Context, s *stage) error {
			return errOf(s.p.PutMblock(ctx, api.AllocOptions{}, many))
		}),
		plain("find mblock", func(ctx context.Context, s *stage) error { return errOf(s.p.Mblock(ctx, s.mblock)) }),
		plain("alloc mlog", func(ctx context.Context, s *stage) error {
			return errOf(s.p.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 16}))
		}),
		plain("find mlog", func(ctx context.Context, s *stage) error { return errOf(s.p.Mlog(ctx, s.log)) }),
		plain("create container", func(ctx context.Context, s *stage) error {
			return errOf(s.p.CreateMDC(ctx, api.AllocOptions{Capacity: 1 << 16}))
		}),
		plain("set root", func(ctx context.Context, s *stage) error {
			return s.p.SetRoots(ctx, []api.Root{{Name: "root", ID: s.mblock}})
		}),
		plain("roots", func(ctx context.Context, s *stage) error { return errOf(s.p.Roots(ctx)) }),
		plain("owners", func(ctx context.Context, s *stage) error { return errOf(s.p.Owners(ctx)) }),
		plain("add owner", func(ctx context.Context, s *stage) error {
			return errOf(s.p.AddOwner(ctx, fmt.Sprint("owner", s.n), 0))
		}),
		plain("objects", func(ctx context.Context, s *stage) error {
			for _, err := range s.p.Objects(ctx, api.Filter{}) {
				if err != nil {
					return err
				}
			}
			return nil
		}),
		writes("write, few bytes", few), writes("write, many bytes", many),
		reads("read, few bytes", 100), reads("read, many bytes", len(many)),
		appends("append", few, false), appends("append, synced", few, true), appends("append, many bytes", many, true),
	}, append(objectCalls(), logCalls()...)...)
}

// objectCalls are those of handles.
func objectCalls() []sweptCall {
	return []sweptCall{
		{"commit", func(s *stage) (a, b func(context.Context) error) {
			m := s.fresh()
			s.ok(errOf(m.Write(s.t.Context(), few)))
			return m.Commit, length(m, len(few))
		}},
		{"commit many", func(s *stage) (a, b func(context.Context) error) {
			list := []api.Object{s.fresh(), s.fresh()}
			return func(ctx context.Context) error {
				return s.p.CommitMany(ctx, list, []api.Root{{Name: "many", ID: list[1].ID()}})
			}, length(list[0], 0)
		}},
		{"abort", func(s *stage) (a, b func(context.Context) error) { return s.fresh().Abort, nothing }},
		{"delete", func(s *stage) (a, b func(context.Context) error) {
			m := s.fresh()
			s.ok(m.Commit(s.t.Context()))
			return m.Delete, nothing
		}},
		{"get", func(s *stage) (a, b func(context.Context) error) {
			m := s.old()
			return func(ctx context.Context) error { return errOf(m.Get(ctx)) }, nothing
		}},
		{"info", func(s *stage) (a, b func(context.Context) error) {
			m := s.old()
			return func(ctx context.Context) error { return errOf(m.Info(ctx)) }, nothing
		}},
		{"grant, revoke", func(s *stage) (a, b func(context.Context) error) {
			m, granted := s.fresh(), false
			return func(ctx context.Context) (err error) {
				if !granted {
					_, err = m.Grant(ctx, time.Minute)
					granted = err == nil
				}
				if err == nil {
					err = m.Revoke(ctx)
				}
				return err
			}, nothing
		}},
		{"accept", func(s *stage) (a, b func(context.Context) error) {
			ctx := s.t.Context()
			p := must[api.Pool](s)(s.admin.OpenPool(ctx, "swept"))
			m := must[api.Mblock](s)(p.AllocMblock(ctx, api.AllocOptions{}))
			token := must[api.Token](s)(m.Grant(ctx, time.Minute))
			return func(ctx context.Context) error { return errOf(s.p.Accept(ctx, token)) }, func(context.Context) error { return p.Close() }
		}},
		{"delete container", func(s *stage) (a, b func(context.Context) error) {
			id := must[layout.ObjectID](s)(s.p.CreateMDC(s.t.Context(), api.AllocOptions{Capacity: 1 << 16}))
			return func(ctx context.Context) error { return s.p.DeleteMDC(ctx, id) }, nothing
		}},
	}
}

// logCalls are those of logs and containers.
func logCalls() []sweptCall {
	return []sweptCall{
		{"open for append", func(s *stage) (a, b func(context.Context) error) {
			l, to := s.freshLog()
			s.ok(to.Close(s.t.Context()))
			return func(ctx context.Context) error { return errOf(l.OpenAppend(ctx)) }, nothing
		}},
		{"sync", func(s *stage) (a, b func(context.Context) error) {
			_, to := s.freshLog()
			s.ok(errOf(to.Append(s.t.Context(), few, false)))
			return to.Sync, nothing
		}},
		{"close of an appender", func(s *stage) (a, b func(context.Context) error) {
			_, to := s.freshLog()
			s.ok(errOf(to.Append(s.t.Context(), few, false)))
			return to.Close, nothing
		}},
		{"erase", func(s *stage) (a, b func(context.Context) error) {
			l, to := s.freshLog()
			s.ok(to.Close(s.t.Context()))
			return func(ctx context.Context) error { return l.Erase(ctx, 0) }, nothing
		}},
		{"open for read", func(s *stage) (a, b func(context.Context) error) {
			l := must[api.Mlog](s)(s.p.Mlog(s.t.Context(), s.log))
			return func(ctx context.Context) error { return errOf(l.OpenRead(ctx)) }, nothing
		}},
		{"next", func(s *stage) (a, b func(context.Context) error) {
			r, p := s.reader(), make([]byte, len(many))
			return func(ctx context.Context) error { return errOf(r.Next(ctx, p)) }, func(ctx context.Context) error {
				if n, err := r.Next(ctx, p); err != nil || !bytes.Equal(p[:n], many) || r.Record() != 2 {
					return fmt.Errorf("the second record has %d bytes, and the next is number %d: %w", n, r.Record(), err)
				}
				if _, err := r.Next(ctx, p); !errors.Is(err, io.EOF) {
					return fmt.Errorf("the log goes on: %w", err)
				}
				return nil
			}
		}},
		{"seek", func(s *stage) (a, b func(context.Context) error) {
			r := s.reader()
			return func(ctx context.Context) error { return r.Seek(ctx, 1) }, nothing
		}},
		{"open container", func(s *stage) (a, b func(context.Context) error) {
			return func(ctx context.Context) error { return errOf(s.p.OpenMDC(ctx, s.container)) }, nothing
		}},
		{"container's append, compaction, close", func(s *stage) (a, b func(context.Context) error) {
			c := must[api.MDC](s)(s.p.OpenMDC(s.t.Context(), s.container))
			steps := []func(context.Context) error{
				func(ctx context.Context) error { return c.Append(ctx, few, true) },
				func(ctx context.Context) error { return errOf(c.OpenRead(ctx)) },
				c.CompactStart,
				func(ctx context.Context) error { return c.CompactAppend(ctx, few) },
				c.CompactEnd,
				func(ctx context.Context) error { return c.Append(ctx, few, false) },
				c.Sync, c.Close,
			}
			return func(ctx context.Context) error {
				for len(steps) > 0 {
					if err := steps[0](ctx); err != nil {
						return err
					}
					steps = steps[1:]
				}
				return nil
			}, nothing
		}},
	}
}
