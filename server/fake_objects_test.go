package server

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

func (o *fakeObject) info() api.ObjectInfo {
	return api.ObjectInfo{
		ID: o.id, Kind: o.id.Kind(), State: o.state, Length: int64(len(o.data)), Capacity: o.o.Capacity,
		Refs: o.refs, Tag: o.o.Tag, Owner: o.o.Owner, Generation: o.gen, Records: uint64(len(o.records)),
	}
}

// fakeHandle is a reference on an object.
type fakeHandle struct {
	o     *fakeObject
	ended bool
}

// use runs f under the pool's lock if the handle lives.
func (h *fakeHandle) use(ctx context.Context, op string, f func() error) error {
	if err := h.o.p.begin(ctx, op); err != nil {
		return err
	}
	h.o.p.mu.Lock()
	defer h.o.p.mu.Unlock()
	if h.ended {
		h.o.p.wrong(op + " on a handle that has ended")
		return api.Errorf(api.EBADF, op, "ended")
	}
	if !h.o.p.active {
		return api.Errorf(api.EBADF, op, "the pool is closed")
	}
	return f()
}

func (h *fakeHandle) ID() layout.ObjectID { return h.o.id }

func (h *fakeHandle) Info(ctx context.Context) (i api.ObjectInfo, err error) {
	err = h.use(ctx, "object info", func() error {
		i = h.o.info()
		return nil
	})
	return i, err
}

func (h *fakeHandle) get(ctx context.Context) (*fakeHandle, error) {
	return &fakeHandle{o: h.o}, h.use(ctx, "object get", func() error {
		h.o.refs++
		return nil
	})
}

func (h *fakeHandle) Put() error {
	h.o.p.mu.Lock()
	defer h.o.p.mu.Unlock()
	if h.ended {
		h.o.p.wrong("put of a handle that has ended")
		return api.Errorf(api.EBADF, "put", "ended")
	}
	h.ended = true
	h.o.refs--
	return nil
}

func (h *fakeHandle) Commit(ctx context.Context) error {
	err := h.use(ctx, "object commit", func() error {
		h.o.busy = true
		return nil
	})
	if err != nil {
		return err
	}
	err = h.o.p.begin(ctx, "object commit record")
	h.o.p.mu.Lock()
	defer h.o.p.mu.Unlock()
	h.o.busy = false
	if err == nil {
		h.o.state = api.StateCommitted
	}
	return err
}

func (h *fakeHandle) end(ctx context.Context, op string, in api.State) error {
	return h.use(ctx, op, func() error {
		switch {
		case h.o.state != in || h.o.busy:
			return api.Errorf(api.ESTATE, op, "it is %v", h.o.state)
		case h.o.refs != 1:
			return &api.Error{Code: api.EBUSY, Op: op, Object: h.o.id, Holders: []api.Holder{{References: h.o.refs}}}
		}
		h.ended = true
		h.o.refs = 0
		delete(h.o.p.objects, h.o.id)
		return nil
	})
}

func (h *fakeHandle) Abort(ctx context.Context) error {
	return h.end(ctx, "object abort", api.StateUncommitted)
}

func (h *fakeHandle) Delete(ctx context.Context) error {
	return h.end(ctx, "object delete", api.StateCommitted)
}

// Grant and Revoke are the server's to do.
func (h *fakeHandle) Grant(context.Context, time.Duration) (api.Token, error) {
	return api.Token{}, api.ENOTSUP
}

func (h *fakeHandle) Revoke(context.Context) error { return api.ENOTSUP }

func (p *fakePool) Accept(context.Context, api.Token) (api.Object, error) { return nil, api.ENOTSUP }

func (p *fakePool) MayHandOver(obj api.Object) error {
	const op = "object grant"
	var h *fakeHandle
	switch o := obj.(type) {
	case *fakeMblock:
		h = o.fakeHandle
	case *fakeMlog:
		h = o.fakeHandle
	}
	return h.use(context.Background(), op, func() error {
		switch {
		case h.o.state != api.StateUncommitted:
			return api.Errorf(api.ESTATE, op, "it is %v", h.o.state)
		case h.o.busy || h.o.refs != 1:
			return api.Errorf(api.EBUSY, op, "in use")
		}
		return nil
	})
}

type fakeMblock struct{ *fakeHandle }

func (m *fakeMblock) Get(ctx context.Context) (api.Object, error) {
	h, err := m.get(ctx)
	return &fakeMblock{h}, err
}

func (m *fakeMblock) Write(ctx context.Context, p []byte) (n int, err error) {
	err = m.use(ctx, "mblock write", func() error {
		if int64(len(m.o.data)+len(p)) > m.o.o.Capacity {
			return api.Errorf(api.EFBIG, "mblock write", "too much")
		}
		m.o.data = append(m.o.data, p...)
		n = len(p)
		return nil
	})
	return n, err
}

func (m *fakeMblock) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = m.use(ctx, "mblock read", func() error {
		if off < 0 {
			return api.Errorf(api.EINVAL, "mblock read", "offset %d", off)
		}
		if off > int64(len(m.o.data)) {
			return io.EOF
		}
		if n = copy(p, m.o.data[off:]); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (m *fakeMblock) ReadAt(p []byte, off int64) (int, error) {
	return m.ReadAtContext(context.Background(), p, off)
}

func (m *fakeMblock) WriteTo(io.Writer) (int64, error) { panic("the server does not use it") }

type fakeMlog struct{ *fakeHandle }

func (m *fakeMlog) Get(ctx context.Context) (api.Object, error) {
	h, err := m.get(ctx)
	return &fakeMlog{h}, err
}

func (m *fakeMlog) OpenAppend(ctx context.Context) (api.Appender, error) {
	err := m.use(ctx, "mlog open", func() error {
		if m.o.append {
			return api.Errorf(api.EBUSY, "mlog open", "open already")
		}
		m.o.append = true
		m.o.refs++
		m.o.p.closers++
		return nil
	})
	return &fakeAppender{fakeHandle{o: m.o}}, err
}

func (m *fakeMlog) OpenRead(ctx context.Context) (api.LogReader, error) {
	err := m.use(ctx, "mlog open", func() error {
		m.o.refs++
		m.o.p.closers++
		return nil
	})
	return &fakeReader{h: fakeHandle{o: m.o}}, err
}

func (m *fakeMlog) Erase(ctx context.Context, gen uint64) error {
	return m.use(ctx, "mlog erase", func() error {
		m.o.records, m.o.gen = nil, max(m.o.gen+1, gen)
		return nil
	})
}

type fakeAppender struct{ h fakeHandle }

func (a *fakeAppender) Append(ctx context.Context, r []byte, _ bool) (n uint64, err error) {
	err = a.h.use(ctx, "append", func() error {
		n = uint64(len(a.h.o.records))
		a.h.o.records = append(a.h.o.records, slices.Clone(r))
		return nil
	})
	return n, err
}

func (a *fakeAppender) Sync(ctx context.Context) error {
	return a.h.use(ctx, "sync", func() error { return nil })
}

func (a *fakeAppender) Len() (records uint64, bytes int64) {
	a.h.o.p.mu.Lock()
	defer a.h.o.p.mu.Unlock()
	for _, r := range a.h.o.records {
		bytes += int64(len(r))
	}
	return uint64(len(a.h.o.records)), bytes
}

func (a *fakeAppender) Close(ctx context.Context) error {
	err := a.h.o.p.begin(ctx, "appender close")
	a.h.o.p.mu.Lock()
	a.h.o.append = false
	a.h.o.p.closers--
	a.h.o.p.mu.Unlock()
	if perr := a.h.Put(); perr != nil {
		return perr
	}
	return err
}

// fakeReader says when it is used by two at a time.
type fakeReader struct {
	h      fakeHandle
	next   uint64
	inside sync.Mutex
}

func (r *fakeReader) Next(ctx context.Context, p []byte) (n int, err error) {
	if !r.inside.TryLock() {
		r.h.o.p.mu.Lock()
		r.h.o.p.wrong("a reader used by two at a time")
		r.h.o.p.mu.Unlock()
	} else {
		defer r.inside.Unlock()
	}
	err = r.h.use(ctx, "read next", func() error {
		if r.next >= uint64(len(r.h.o.records)) {
			return io.EOF
		}
		rec := r.h.o.records[r.next]
		if len(rec) > len(p) {
			return &api.Error{Code: api.EOVERFLOW, Op: "read next", Want: int64(len(rec))}
		}
		n = copy(p, rec)
		r.next++
		return nil
	})
	return n, err
}

func (r *fakeReader) Record() uint64 { return r.next }

func (r *fakeReader) Seek(_ context.Context, n uint64) error {
	r.next = n
	return nil
}

func (r *fakeReader) Rewind() { r.next = 0 }

func (r *fakeReader) Close() error {
	r.h.o.p.mu.Lock()
	r.h.o.p.closers--
	r.h.o.p.mu.Unlock()
	return r.h.Put()
}

type fakeMDC struct{ h *fakeHandle }

func (m *fakeMDC) Append(ctx context.Context, r []byte, _ bool) error {
	return m.h.use(ctx, "mdc append", func() error {
		m.h.o.records = append(m.h.o.records, slices.Clone(r))
		return nil
	})
}

func (m *fakeMDC) Sync(context.Context) error { return nil }

func (m *fakeMDC) OpenRead(ctx context.Context) (api.LogReader, error) {
	return (&fakeMlog{m.h}).OpenRead(ctx)
}
func (m *fakeMDC) CompactStart(context.Context) error { return nil }
func (m *fakeMDC) CompactAppend(ctx context.Context, r []byte) error {
	return m.Append(ctx, r, false)
}
func (m *fakeMDC) CompactEnd(context.Context) error   { return nil }
func (m *fakeMDC) CompactAbort(context.Context) error { return nil }
func (m *fakeMDC) Usage() (used, capacity int64)      { return 1, 2 }

func (m *fakeMDC) Close(context.Context) error {
	m.h.o.p.mu.Lock()
	m.h.o.append = false
	m.h.o.p.closers--
	m.h.o.p.mu.Unlock()
	return m.h.Put()
}
