package main

import (
	"context"
	"io"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// fakeHandle is a handle on an object.
type fakeHandle struct {
	api.Mblock
	pool *fakePool
	obj  *fakeObject
}

func (h *fakeHandle) ID() layout.ObjectID { return h.obj.info.ID }

func (h *fakeHandle) Info(context.Context) (api.ObjectInfo, error) {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	info := h.obj.info
	info.Refs = uint32(h.obj.refs)
	info.Records = uint64(len(h.obj.records))
	return info, nil
}

func (h *fakeHandle) Put() error {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	h.obj.refs--
	return nil
}

func (h *fakeHandle) Commit(context.Context) error {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	h.obj.info.State = api.StateCommitted
	return nil
}

func (h *fakeHandle) Abort(context.Context) error {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	delete(h.pool.objects, h.obj.info.ID)
	return nil
}

func (h *fakeHandle) Delete(context.Context) error {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	switch {
	case h.pool.failDelete != nil:
		return h.pool.failDelete
	case h.obj.refs > 1:
		return &api.Error{
			Code: api.EBUSY, Op: "mblock delete", Object: h.obj.info.ID, Detail: "others hold references",
			Holders: []api.Holder{{PID: 4711, References: uint32(h.obj.refs - 1)}},
		}
	}
	delete(h.pool.objects, h.obj.info.ID)
	return nil
}

func (h *fakeHandle) Write(ctx context.Context, p []byte) (int, error) {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	if ctx.Err() != nil {
		return 0, api.ContextError("mblock write", context.Cause(ctx))
	}
	if h.pool.failWrite != nil && h.pool.okWrites == 0 {
		if h.pool.committed != nil {
			h.pool.mu.Unlock()
			<-h.pool.committed
			h.pool.mu.Lock()
		}
		return 0, h.pool.failWrite
	}
	h.pool.okWrites--
	if int64(len(h.obj.data)+len(p)) > h.obj.info.Capacity {
		return 0, api.Errorf(api.EFBIG, "mblock write", "past capacity")
	}
	if len(h.obj.data)%4096 != 0 {
		return 0, api.Errorf(api.ESTATE, "mblock write", "the last write was no multiple of 4096")
	}
	h.obj.data = append(h.obj.data, p...)
	h.obj.info.Length = int64(len(h.obj.data))
	return len(p), nil
}

func (h *fakeHandle) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	if off >= int64(len(h.obj.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.obj.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *fakeHandle) ReadAt(p []byte, off int64) (int, error) {
	return h.ReadAtContext(context.Background(), p, off)
}

// fakeLog is a handle on a log.
type fakeLog struct {
	*fakeHandle
}

func (l *fakeLog) Erase(_ context.Context, minGeneration uint64) error {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.obj.records = nil
	l.obj.info.Generation = max(l.obj.info.Generation+1, minGeneration)
	return nil
}

func (l *fakeLog) OpenAppend(context.Context) (api.Appender, error) {
	return &fakeAppender{log: l}, nil
}

func (l *fakeLog) OpenRead(context.Context) (api.LogReader, error) { return &fakeReader{log: l}, nil }

type fakeAppender struct {
	api.Appender
	log   *fakeLog
	syncs int
}

func (a *fakeAppender) Append(_ context.Context, record []byte, _ bool) (uint64, error) {
	a.log.pool.mu.Lock()
	defer a.log.pool.mu.Unlock()
	if a.log.pool.failWrite != nil && a.log.pool.okWrites == 0 {
		return 0, a.log.pool.failWrite
	}
	a.log.pool.okWrites--
	a.log.obj.records = append(a.log.obj.records, slices.Clone(record))
	return uint64(len(a.log.obj.records) - 1), nil
}

func (a *fakeAppender) Sync(context.Context) error {
	a.log.pool.mu.Lock()
	defer a.log.pool.mu.Unlock()
	a.syncs++
	a.log.obj.synced = len(a.log.obj.records)
	return nil
}

func (a *fakeAppender) Close(ctx context.Context) error { return a.Sync(ctx) }

type fakeReader struct {
	api.LogReader
	log *fakeLog
	at  uint64
}

func (r *fakeReader) Record() uint64 { return r.at }

func (r *fakeReader) Close() error { return nil }

func (r *fakeReader) Seek(_ context.Context, record uint64) error {
	r.log.pool.mu.Lock()
	defer r.log.pool.mu.Unlock()
	if record > uint64(len(r.log.obj.records)) {
		return api.Errorf(api.ENOENT, "mlog seek", "the log has %d records", len(r.log.obj.records))
	}
	r.at = record
	return nil
}

func (r *fakeReader) Next(_ context.Context, p []byte) (int, error) {
	r.log.pool.mu.Lock()
	defer r.log.pool.mu.Unlock()
	if r.at >= uint64(len(r.log.obj.records)) {
		return 0, io.EOF
	}
	rec := r.log.obj.records[r.at]
	if len(rec) > len(p) {
		return 0, &api.Error{Code: api.EOVERFLOW, Op: "mlog read", Want: int64(len(rec)), Detail: "buffer too small"}
	}
	r.at++
	return copy(p, rec), nil
}
