package misuse

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

func (w *world) newLog() {
	var err error
	w.l, err = w.AllocMlog(w.ctx, api.AllocOptions{Capacity: 64 << 10})
	w.ok(err)
	w.id = w.l.ID()
}

func (w *world) someLog() {
	w.l = w.log(3)
	w.id = w.l.ID()
}

// appending opens the log for append until the world ends.
func (w *world) appending() api.Appender {
	w.someLog()
	a, err := w.l.OpenAppend(w.ctx)
	w.ok(err)
	w.later(func() { _ = a.Close(w.ctx) })
	return a
}

// reading opens the log for read until the world ends.
func (w *world) reading() api.LogReader {
	w.someLog()
	r, err := w.l.OpenRead(w.ctx)
	w.ok(err)
	w.later(func() { _ = r.Close() })
	return r
}

// proves S15 S24 S25 S30 S31 S40
func TestMlogStates(t *testing.T) {
	t.Parallel()
	x := table{
		states: map[string]func(w *world){
			"uncommitted":  (*world).newLog,
			"committed":    (*world).someLog,
			"shared":       func(w *world) { w.someLog(); w.shared(w.l) },
			"append,open":  func(w *world) { w.appending() },
			"read,open":    func(w *world) { w.reading() },
			"erased":       func(w *world) { w.someLog(); w.ok(w.l.Erase(w.ctx, 0)) },
			"deleting":     func(w *world) { w.someLog(); w.leaving(w.l) },
			"deleted":      func(w *world) { w.someLog(); w.ok(w.l.Delete(w.ctx)) },
			"aborted":      func(w *world) { w.newLog(); w.ok(w.l.Abort(w.ctx)) },
			"put":          func(w *world) { w.someLog(); w.ok(w.l.Put()) },
			"readonly":     func(w *world) { w.someLog(); w.readOnly() },
			"readonly,new": func(w *world) { w.newLog(); w.readOnly() },
			"container": func(w *world) {
				var err error
				w.id, err = w.CreateMDC(w.ctx, api.AllocOptions{Capacity: 64 << 10})
				w.ok(err)
				w.l, err = w.Mlog(w.ctx, w.id)
				w.ok(err)
			},
			"deactivated": func(w *world) { w.someLog(); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"info":   func(w *world) error { _, err := w.l.Info(w.ctx); return err },
			"get":    func(w *world) error { _, err := w.l.Get(w.ctx); return err },
			"put":    func(w *world) error { return w.l.Put() },
			"commit": func(w *world) error { return w.l.Commit(w.ctx) },
			"abort":  func(w *world) error { return w.l.Abort(w.ctx) },
			"delete": func(w *world) error { return w.l.Delete(w.ctx) },
			"erase":  func(w *world) error { return w.l.Erase(w.ctx, 0) },
			"append": func(w *world) error {
				a, err := w.l.OpenAppend(w.ctx)
				if err == nil {
					w.later(func() { _ = a.Close(w.ctx) })
				}
				return err
			},
			"read": func(w *world) error {
				r, err := w.l.OpenRead(w.ctx)
				if err == nil {
					w.later(func() { _ = r.Close() })
				}
				return err
			},
			"find":   func(w *world) error { _, err := w.Mlog(w.ctx, w.id); return err },
			"mblock": func(w *world) error { _, err := w.Mblock(w.ctx, w.id); return err },
			"mdc":    func(w *world) error { _, err := w.OpenMDC(w.ctx, w.id); return err },
			"delmdc": func(w *world) error { return w.DeleteMDC(w.ctx, w.id) },
		},
		cells: `
			              info      get       put       commit    abort      delete     erase      append     read       find       mblock     mdc        delmdc
			uncommitted   ok        ok        ok        ok        ok         ESTATE/S15 ESTATE/S24 ESTATE/S25 ESTATE/S25 ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			committed     ok        ok        ok        ok        ESTATE/S12 ok         ok         ok         ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			shared        ok        ok        ok        ok        ESTATE/S12 EBUSY/S15  ok         ok         ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			append,open   ok        ok        ok        ok        ESTATE/S12 EBUSY/S24  EBUSY/S24  EBUSY/S25  ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			read,open     ok        ok        ok        ok        ESTATE/S12 EBUSY/S24  EBUSY/S24  ok         ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			erased        ok        ok        ok        ok        ESTATE/S12 ok         ok         ok         ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			deleting      EBADF/S31 EBADF/S31 -         EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  ENOENT/S15 EINVAL/S10 ENOENT/S15 ENOENT/S15
			deleted       EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  ENOENT/S15 EINVAL/S10 ENOENT/S15 ENOENT/S15
			aborted       EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  ENOENT/S12 EINVAL/S10 ENOENT/S12 ENOENT/S12
			put           EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  EBADF/S31  ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			readonly      ok        ok        ok        ok        ESTATE/S12 EROFS/S40  EROFS/S40  ok         ok         ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			readonly,new  ok        ok        ok        EROFS/S40 ok         ESTATE/S15 EROFS/S40  ESTATE/S25 ESTATE/S25 ok         EINVAL/S10 EINVAL/S26 EINVAL/S26
			container     ok        ok        ok        ok        ESTATE/S12 ESTATE/S26 ESTATE/S26 ESTATE/S26 ok         ok         EINVAL/S10 ok         EBUSY/S15
			deactivated   gone/S31  gone/S31  ok        gone/S31  gone/S31   gone/S31   gone/S31   gone/S31   gone/S31   gone/S31   gone/S31   gone/S31   gone/S31
		`,
	}
	x.run(t)
}

// proves S20 S24 S25 S31 S40
func TestAppenderStates(t *testing.T) {
	t.Parallel()
	open := func(w *world) { w.a = w.appending() }
	x := table{
		states: map[string]func(w *world){
			"open":   open,
			"closed": func(w *world) { open(w); w.ok(w.a.Close(w.ctx)) },
			"full": func(w *world) {
				open(w)
				var err error
				for err == nil {
					_, err = w.a.Append(w.ctx, content(1, 3000), false)
				}
				for err = nil; err == nil; {
					_, err = w.a.Append(w.ctx, content(1, 1), false)
				}
				w.ok(w.a.Sync(w.ctx))
			},
			"poisoned": func(w *world) {
				open(w)
				w.disks.fail(bdev.OpWrite)
				if _, err := w.a.Append(w.ctx, content(1, 100), true); !errors.Is(err, api.EUNKNOWN) && !errors.Is(err, api.EIO) {
					w.t.Fatalf("an append that the drive failed: %v", err)
				}
				w.disks.heal()
			},
			"readonly":    func(w *world) { open(w); w.readOnly() },
			"deactivated": func(w *world) { open(w); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"append":   func(w *world) error { _, err := w.a.Append(w.ctx, content(9, 100), true); return err },
			"unsynced": func(w *world) error { _, err := w.a.Append(w.ctx, content(9, 100), false); return err },
			"toolong": func(w *world) error {
				_, err := w.a.Append(w.ctx, make([]byte, api.MaxRecord+1), false)
				return err
			},
			"overfull": func(w *world) error { _, err := w.a.Append(w.ctx, make([]byte, 1<<20), false); return err },
			"sync":     func(w *world) error { return w.a.Sync(w.ctx) },
			"close":    func(w *world) error { return w.a.Close(w.ctx) },
		},
		cells: `
			            append     unsynced   toolong    overfull   sync         close
			open        ok         ok         EINVAL/S20 EFBIG/S24  ok           ok
			closed      EBADF/S31  EBADF/S31  EBADF|EINVAL/S31 EBADF/S31 EBADF/S31 EBADF/S31
			full        EFBIG/S24  EFBIG/S24  EINVAL/S20 EFBIG/S24  ok           ok
			poisoned    EIO/S40    EIO/S40    EIO|EINVAL/S40 EIO/S40 EUNKNOWN/S40 -
			readonly    EROFS/S40  EROFS/S40  EROFS|EINVAL/S40 EROFS/S40 EROFS/S40 ok
			deactivated gone/S31   gone/S31   gone|EINVAL/S31 gone/S31 gone/S31  -
		`,
	}
	x.run(t)
}

// proves S20 S25 S31
func TestReaderStates(t *testing.T) {
	t.Parallel()
	readers(t, func(w *world) { w.r = w.reading() })
}

// proves S20 S25 S26 S31
func TestContainerReaderStates(t *testing.T) {
	t.Parallel()
	readers(t, func(w *world) {
		id, err := w.CreateMDC(w.ctx, api.AllocOptions{Capacity: 64 << 10})
		w.ok(err)
		c, err := w.OpenMDC(w.ctx, id)
		w.ok(err)
		for i := range 3 {
			w.ok(c.Append(w.ctx, content(uint64(i), 500), true))
		}
		w.r, err = c.OpenRead(w.ctx)
		w.ok(err)
		w.later(func() { _ = c.Close(w.ctx) })
		w.later(func() { _ = w.r.Close() })
	})
}

func readers(t *testing.T, open func(w *world)) {
	t.Helper()
	x := table{
		states: map[string]func(w *world){
			"open":   open,
			"ended":  func(w *world) { open(w); w.records(w.r) },
			"closed": func(w *world) { open(w); w.ok(w.r.Close()) },
			"unreadable": func(w *world) {
				open(w)
				for _, d := range w.disks.rack {
					d.SetUnreadable(4<<20, diskBytes-8<<20)
				}
			},
			"readonly":    func(w *world) { open(w); w.readOnly() },
			"deactivated": func(w *world) { open(w); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"next":   func(w *world) error { _, err := w.r.Next(w.ctx, make([]byte, 1000)); return end(err) },
			"small":  func(w *world) error { _, err := w.r.Next(w.ctx, make([]byte, 499)); return end(err) },
			"seek":   func(w *world) error { return w.r.Seek(w.ctx, 1) },
			"beyond": func(w *world) error { return w.r.Seek(w.ctx, 4) },
			"far":    func(w *world) error { return w.r.Seek(w.ctx, 1<<64-1) },
			"close":  func(w *world) error { return w.r.Close() },
		},
		cells: `
			            next      small         seek      beyond     far        close
			open        ok        EOVERFLOW/S24 ok        ENOENT/S20 ENOENT/S20 ok
			ended       ok        ok            ok        ENOENT/S20 ENOENT/S20 ok
			closed      EBADF/S31 EBADF/S31     EBADF/S31 EBADF/S31  EBADF/S31  EBADF/S31
			unreadable  -         -             ok        ENOENT|EIO/S20 ENOENT|EIO/S20 ok
			readonly    ok        EOVERFLOW/S24 ok        ENOENT/S20 ENOENT/S20 ok
			deactivated gone/S31  gone/S31      gone/S31  gone/S31   gone/S31   -
		`,
	}
	x.run(t)
}

// proves S24 S26 S31 S40
func TestContainerStates(t *testing.T) {
	t.Parallel()
	made := func(w *world) {
		var err error
		w.id, err = w.CreateMDC(w.ctx, api.AllocOptions{Capacity: 64 << 10})
		w.ok(err)
	}
	open := func(w *world) {
		made(w)
		c, err := w.OpenMDC(w.ctx, w.id)
		w.ok(err)
		w.later(func() { _ = c.Close(w.ctx) })
		w.ok(errors.Join(c.Append(w.ctx, content(1, 100), false), c.Append(w.ctx, content(2, 100), true)))
		w.c = c
	}
	compacting := func(w *world) {
		open(w)
		w.ok(errors.Join(w.c.CompactStart(w.ctx), w.c.CompactAppend(w.ctx, content(3, 100))))
	}
	x := table{
		states: map[string]func(w *world){
			"open":          open,
			"compacting":    compacting,
			"compacted":     func(w *world) { compacting(w); w.ok(w.c.CompactEnd(w.ctx)) },
			"closed":        func(w *world) { open(w); w.ok(w.c.Close(w.ctx)) },
			"readonly":      func(w *world) { open(w); w.readOnly() },
			"readonly,busy": func(w *world) { compacting(w); w.readOnly() },
			"deactivated":   func(w *world) { open(w); w.deactivate() },
		},
		calls: map[string]func(w *world) error{
			"append":   func(w *world) error { return w.c.Append(w.ctx, content(9, 100), true) },
			"toolong":  func(w *world) error { return w.c.Append(w.ctx, make([]byte, api.MaxRecord+1), true) },
			"overfull": func(w *world) error { return w.c.Append(w.ctx, make([]byte, 1<<20), true) },
			"sync":     func(w *world) error { return w.c.Sync(w.ctx) },
			"start":    func(w *world) error { return w.c.CompactStart(w.ctx) },
			"compact":  func(w *world) error { return w.c.CompactAppend(w.ctx, content(9, 100)) },
			"end":      func(w *world) error { return w.c.CompactEnd(w.ctx) },
			"give-up":  func(w *world) error { return w.c.CompactAbort(w.ctx) },
			"read": func(w *world) error {
				r, err := w.c.OpenRead(w.ctx)
				if err == nil {
					w.later(func() { _ = r.Close() })
				}
				return err
			},
			"close": func(w *world) error { return w.c.Close(w.ctx) },
			"open": func(w *world) error {
				c, err := w.OpenMDC(w.ctx, w.id)
				if err == nil {
					w.later(func() { _ = c.Close(w.ctx) })
				}
				return err
			},
			"delete": func(w *world) error { return w.DeleteMDC(w.ctx, w.id) },
		},
		cells: `
			              append    toolong    overfull  sync      start      compact    end        give-up    read      close     open      delete
			open          ok        EINVAL/S20 EFBIG/S24 ok        ok         ESTATE/S26 ESTATE/S26 ESTATE/S26 ok        ok        EBUSY/S25 EBUSY/S24
			compacting    ok        EINVAL/S20 EFBIG/S24 ok        ESTATE/S26 ok         ok         ok         ok        ok        EBUSY/S25 EBUSY/S24
			compacted     ok        EINVAL/S20 EFBIG/S24 ok        ok         ESTATE/S26 ESTATE/S26 ESTATE/S26 ok        ok        EBUSY/S25 EBUSY/S24
			closed        EBADF/S31 EBADF|EINVAL/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 EBADF/S31 ok   ok
			readonly      EROFS/S40 EROFS|EINVAL/S40 EROFS/S40 EROFS/S40 EROFS/S40 EROFS/S40 EROFS/S40 ESTATE/S26 ok - EBUSY/S25 EBUSY|EROFS/S24
			readonly,busy EROFS/S40 EROFS|EINVAL/S40 EROFS/S40 EROFS/S40 EROFS/S40 EROFS/S40 EROFS/S40 ok ok - EBUSY/S25 EBUSY|EROFS/S24
			deactivated   gone/S31  gone|EINVAL/S31 gone/S31 gone/S31 gone/S31 gone/S31  gone/S31   gone/S31   gone/S31  -         gone/S31  gone/S31
		`,
	}
	x.run(t)
}
