package client

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// window is a piece of an mblock that was asked for before it is needed: under
// way, or there. Between claims nobody is within the ring for it, and when the
// connection ends it is given back by itself.
type window struct {
	s    *slot
	tag  uint64 // that the slot was begun with
	off  int64  // into the mblock, in bytes
	size int
}

// Bounds of what is read ahead. A link has few windows, so that calls always
// find room beside them.
const (
	maxWindows   = 8
	minSlots     = 32        // of a ring that has room for windows
	windowSize   = 256 << 10 // bytes, for small reads one after another
	smallRead    = 64 << 10  // bytes at most
	sequentially = 4         // small reads make a sequence
)

// ahead begins to read a window, if there is room for it. Small ones are to be
// read from, large ones from the beginning to the end.
func (r *sharedRing) ahead(w *caller, h *handle, off int64, size int) *window {
	if len(r.slots) < minSlots || r.l.windows.Add(1) > maxWindows {
		r.l.windows.Add(-1)
		return nil
	}
	hold := r.l.arenas.try(size)
	if hold == nil {
		r.l.windows.Add(-1)
		return nil
	}
	at := hold.window(size)
	q := request{hold: hold, Descriptor: ring.Descriptor{
		Op: uint16(ioctl.OpMblockRead), Handle: uint64(h.h), Offset: off,
		Arena: at.Arena, Window: at.Offset, Length: at.Length,
	}}
	s, err := r.begin(context.Background(), w, &q, false)
	if s == nil || err != nil {
		r.l.windows.Add(-1)
		return nil
	}
	x := &window{s: s, tag: q.Tag, off: off, size: size}
	r.keep(x)
	return x
}

// keep leaves a window to itself.
func (r *sharedRing) keep(x *window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := x.s
	s.kept, s.who = true, nil
	r.inside--
	if r.dead != nil {
		s.late = true
		r.settle(s)
	}
	r.unmapIdle()
}

// claim takes a window that was kept; false: it is gone, with its connection.
func (r *sharedRing) claim(x *window) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead != nil || !x.s.kept || x.s.begun != x.tag {
		return false
	}
	x.s.kept = false
	r.inside++
	return true
}

// forget gives a window up that was kept; nil is none.
func (r *sharedRing) forget(x *window) {
	if x == nil {
		return
	}
	r.l.windows.Add(-1)
	if r.claim(x) && !r.abandon(x.s) {
		r.finish(x.s)
	}
}

// view waits for a claimed window, and returns its bytes and whether the mblock
// ends with them. When it fails the window is gone.
func (r *sharedRing) view(ctx context.Context, w *caller, x *window) (p []byte, eof bool, err error) {
	if err := r.await(ctx, w, x.s); err != nil {
		r.l.windows.Add(-1)
		return nil, false, err
	}
	c, err := x.s.answer(ctx)
	if err != nil {
		r.l.windows.Add(-1)
		r.finish(x.s)
		return nil, false, err
	}
	return x.s.hold.mem[:c.N], c.Flags&ring.FlagEOF != 0, nil
}

// readAhead serves small reads of an mblock that follow each other from windows
// that are read before. Only of a committed mblock, which never changes, and only
// as long as the handle, which keeps it from being deleted, is held.
type readAhead struct {
	next atomic.Int64 // where a sequence would go on
	run  atomic.Int32 // reads in a sequence
	used atomic.Bool  // there may be windows
	gone atomic.Bool  // the handle was given up
	// refused says that the mblock was not committed when that was last asked.
	refused atomic.Bool

	// turn is had by at most one goroutine, which waits for nobody else's; the
	// rest is its.
	turn  atomic.Bool
	fixed bool       // the mblock is known to be committed
	list  [2]*window // one after the other
}

// read serves a read from a window; false: it did not, and the read is made as
// any.
func (a *readAhead) read(ctx context.Context, m *mblock, p []byte, off int64) (n int, eof, ok bool) {
	end := off + int64(len(p))
	if last := a.next.Swap(end); last != off || len(p) == 0 || len(p) > smallRead {
		a.run.Store(0)
		if a.used.Load() {
			a.drop(m)
		}
		return 0, false, false
	}
	if a.run.Load() < sequentially {
		a.run.Add(1)
		return 0, false, false
	}
	r := m.l.shared.Load()
	if r == nil || a.gone.Load() || !m.l.mark.here() || !a.turn.CompareAndSwap(false, true) {
		return 0, false, false
	}
	defer func() {
		a.turn.Store(false)
		if a.gone.Load() {
			a.drop(m)
		}
	}()
	if !a.committed(ctx, m) {
		return 0, false, false
	}
	w := getCaller()
	defer putCaller(w)
	for {
		got, last, ok := a.from(ctx, r, w, m, p[n:], off+int64(n))
		n += got
		if !ok || last || n == len(p) {
			return n, last, ok
		}
	}
}

// committed says whether the mblock is committed, which it asks once.
func (a *readAhead) committed(ctx context.Context, m *mblock) bool {
	if a.fixed || a.refused.Load() {
		return a.fixed
	}
	info, err := m.Info(ctx)
	a.fixed = err == nil && info.State == api.StateCommitted
	a.refused.Store(!a.fixed)
	return a.fixed
}

// from copies what the first window has of p, and goes on to the second when
// the first is used up.
func (a *readAhead) from(ctx context.Context, r *sharedRing, w *caller, m *mblock, p []byte, off int64) (n int, eof, ok bool) {
	x := a.list[0]
	if x != nil && (off < x.off || off >= x.off+int64(x.size)) {
		r.forget(x)
		a.list[0], a.list[1] = a.list[1], nil
		if x = a.list[0]; x != nil && x.off != off {
			r.forget(x)
			a.list[0], x = nil, nil
		}
	}
	if x == nil {
		if x = r.ahead(w, &m.handle, off, windowSize); x == nil {
			return 0, false, false
		}
		a.list[0] = x
		a.used.Store(true)
	}
	if a.list[1] == nil {
		a.list[1] = r.ahead(w, &m.handle, x.off+int64(x.size), windowSize)
	}
	if !r.claim(x) {
		r.l.windows.Add(-1)
		a.list[0] = nil
		return 0, false, false
	}
	data, last, err := r.view(ctx, w, x)
	if err != nil || len(data) < x.size && !last {
		if err == nil {
			r.keep(x)
			r.forget(x)
		}
		a.list[0] = nil
		return 0, false, false
	}
	n = copy(p, data[min(off-x.off, int64(len(data))):])
	r.keep(x)
	return n, last && n < len(p), true
}

// drop gives all windows up, unless a read is at them.
func (a *readAhead) drop(m *mblock) {
	if !a.turn.CompareAndSwap(false, true) {
		return
	}
	defer a.turn.Store(false)
	a.used.Store(false)
	if r := m.l.shared.Load(); r != nil {
		for i, x := range a.list {
			r.forget(x)
			a.list[i] = nil
		}
	}
}

// end gives all windows up for good. A read that is at them does it at its end.
func (a *readAhead) end(m *mblock) {
	a.gone.Store(true)
	a.drop(m)
}

// afresh lets it be asked again whether the mblock is committed.
func (a *readAhead) afresh() { a.refused.Store(false) }

// Put implements [api.Object].
func (m *mblock) Put() error {
	m.ahead.end(m)
	return m.object.Put()
}

// Delete implements [api.Object].
func (m *mblock) Delete(ctx context.Context) error {
	m.ahead.drop(m)
	err := m.object.Delete(ctx)
	if err == nil {
		m.ahead.end(m)
	}
	return err
}

// copyAhead is copying over the ring: while the writer has a window the next one
// is under way. It returns when there is no room for windows, or the copy has
// ended, with what kept it from reading.
func (c *copying) ahead(ctx context.Context, r *sharedRing, h *handle) (ended bool, err error) {
	w := getCaller()
	defer putCaller(w)
	x := r.ahead(w, h, c.done, chunk)
	for x != nil && r.claim(x) {
		data, eof, err := r.view(ctx, w, x)
		if err != nil {
			return true, err
		}
		n := copy(c.buf, data)
		short := n < x.size
		r.keep(x)
		r.forget(x)
		x = nil
		if !eof && !short {
			x = r.ahead(w, h, c.done+int64(n), chunk)
		}
		n, c.err = c.w.Write(c.buf[:n])
		c.done += int64(n)
		if eof || c.err != nil {
			r.forget(x)
			return true, nil
		}
	}
	return false, nil
}

var _ io.WriterTo = (*mblock)(nil)
