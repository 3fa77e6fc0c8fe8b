package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// cachedMblock is a committed mblock that is open under a read credit: nobody
// deletes it while the credit is held, so it needs no handle of the daemon's
// before something is done that only the daemon can do. Reads are served from the
// connection's cache of objects if they can.
type cachedMblock struct {
	// What each read looks at lies together.
	l     *link // whose the credit is
	c     *credits
	inner atomic.Pointer[mblock]
	ended atomic.Bool
	pins  atomic.Int32 // who keeps the credit: the handle and its views

	p       *pool
	hold    *Hold
	opening chan struct{} // has a token while the daemon is asked for the handle
	id      layout.ObjectID
	birth
}

var (
	_ api.Mblock = (*cachedMblock)(nil)
	_ BufferIO   = (*cachedMblock)(nil)
)

// creditPatience is how long an open waits until others have said that they do not
// hold what conflicts: one of them may be stopped.
const creditPatience = time.Second

// live refuses the use of a handle that was given up, or whose connection is gone or
// another process's, to which nobody tells what is called back.
func (m *cachedMblock) live(op ioctl.Op) error {
	if !m.l.mark.here() {
		return foreign(op.Name(), m.l.pid)
	}
	if m.ended.Load() {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	if m.l.over.Load() {
		return stale(op)
	}
	return nil
}

// open returns the daemon's handle, which it asks for once.
func (m *cachedMblock) open(ctx context.Context, op ioctl.Op) (*mblock, error) {
	if err := m.live(op); err != nil {
		return nil, err
	}
	if x := m.inner.Load(); x != nil {
		return x, nil
	}
	select {
	case m.opening <- struct{}{}:
		defer func() { <-m.opening }()
	case <-ctx.Done():
		return nil, expired(ctx, op.Name())
	}
	if x := m.inner.Load(); x != nil {
		return x, nil
	}
	h, ok := m.p.have(m.l)
	if !ok {
		return nil, stale(op)
	}
	x, err := m.find(ctx, h)
	switch {
	case err == nil && x.created.Equal(m.created):
		m.inner.Store(x)
		if m.ended.Load() { // Put may not have seen it
			return nil, errors.Join(m.live(op), m.putInner())
		}
		return x, nil
	case err == nil:
		m.l.putBack(ctx, x.h)
	case lostIn(err) != nil:
		return nil, stale(op)
	case !errors.Is(err, api.ENOENT):
		return nil, err
	}
	return nil, &api.Error{
		Code: api.ESTALE, Op: op.Name(), Object: m.id,
		Detail: "the credit under which the mblock was open was taken, and the mblock deleted: open it anew",
	}
}

// How long the daemon is asked again for a handle that it does not give because
// somebody else asks for the mblock.
const (
	firstBusy = time.Millisecond
	lastBusy  = 64 * time.Millisecond
)

// find asks the daemon for its handle. Who only tries to have what conflicts with the
// credit that is held here is in the way for a moment; who waits for it, until it is
// released.
func (m *cachedMblock) find(ctx context.Context, h ioctl.Handle) (*mblock, error) {
	for wait := firstBusy; ; wait *= 2 {
		x, err := m.p.findOn(ctx, m.l, h, m.id)
		if !errors.Is(err, api.EBUSY) || wait > lastBusy || !m.hold.Valid() || m.hold.isWanted() || pause(ctx, wait) != nil {
			return x, err
		}
	}
}

// ID implements [api.Object].
func (m *cachedMblock) ID() layout.ObjectID { return m.id }

// Info implements [api.Object].
func (m *cachedMblock) Info(ctx context.Context) (api.ObjectInfo, error) {
	x, err := m.open(ctx, ioctl.OpObjectInfo)
	if err != nil {
		return api.ObjectInfo{}, err
	}
	return x.Info(ctx)
}

// Get implements [api.Object]. The other handle is without a credit: to wait for
// one while this one is held might be to wait for oneself.
func (m *cachedMblock) Get(ctx context.Context) (api.Object, error) {
	x, err := m.open(ctx, ioctl.OpObjectGet)
	if err != nil {
		return nil, err
	}
	return x.Get(ctx)
}

// Put implements [api.Object].
func (m *cachedMblock) Put() error {
	if m.ended.Swap(true) {
		return api.Errorf(api.EBADF, ioctl.OpClose.Name(), "the handle was given up before")
	}
	m.unpin()
	return m.putInner()
}

// putInner gives up the daemon's handle, if there is one.
func (m *cachedMblock) putInner() error {
	if x := m.inner.Swap(nil); x != nil {
		return x.Put()
	}
	return nil
}

// Commit implements [api.Object].
func (m *cachedMblock) Commit(ctx context.Context) error {
	x, err := m.open(ctx, ioctl.OpObjectCommit)
	if err != nil {
		return err
	}
	return x.Commit(ctx)
}

// Abort implements [api.Object].
func (m *cachedMblock) Abort(ctx context.Context) error {
	x, err := m.open(ctx, ioctl.OpObjectAbort)
	if err != nil {
		return err
	}
	return x.Abort(ctx)
}

// Delete implements [api.Object]. Also EBUSY: there are views. The credit is kept
// meanwhile: it is in nobody's way.
func (m *cachedMblock) Delete(ctx context.Context) error {
	const op = ioctl.OpObjectDelete
	x, err := m.open(ctx, op)
	if err != nil {
		return err
	}
	if m.pins.Load() > 1 {
		return &api.Error{Code: api.EBUSY, Op: op.Name(), Object: m.id, Detail: "there are views of it in this process: release them"}
	}
	err = x.delete(ctx, 1)
	if err == nil && !m.ended.Swap(true) {
		m.unpin()
	}
	return err
}

// Grant implements [api.Object].
func (m *cachedMblock) Grant(ctx context.Context, ttl time.Duration) (api.Token, error) {
	x, err := m.open(ctx, ioctl.OpGrant)
	if err != nil {
		return api.Token{}, err
	}
	return x.Grant(ctx, ttl)
}

// Revoke implements [api.Object].
func (m *cachedMblock) Revoke(ctx context.Context) error {
	x, err := m.open(ctx, ioctl.OpRevoke)
	if err != nil {
		return err
	}
	return x.Revoke(ctx)
}

// Write implements [api.Mblock].
func (m *cachedMblock) Write(ctx context.Context, p []byte) (int, error) {
	x, err := m.open(ctx, ioctl.OpMblockWrite)
	if err != nil {
		return 0, err
	}
	return x.Write(ctx, p)
}

// ReadBuffer implements [BufferIO].
func (m *cachedMblock) ReadBuffer(ctx context.Context, b *Buffer, off int64) (int, error) {
	x, err := m.open(ctx, ioctl.OpMblockRead)
	if err != nil {
		return 0, err
	}
	return x.ReadBuffer(ctx, b, off)
}

// WriteBuffer implements [BufferIO].
func (m *cachedMblock) WriteBuffer(ctx context.Context, b *Buffer) (int, error) {
	x, err := m.open(ctx, ioctl.OpMblockWrite)
	if err != nil {
		return 0, err
	}
	return x.WriteBuffer(ctx, b)
}

// WriteTo implements [io.WriterTo]. It goes by the cache: what is read once, from
// the beginning to the end, would only take the place of others.
func (m *cachedMblock) WriteTo(w io.Writer) (int64, error) {
	x, err := m.open(context.Background(), ioctl.OpMblockRead)
	if err != nil {
		return 0, err
	}
	return x.WriteTo(w)
}

// ReadAt implements [io.ReaderAt].
func (m *cachedMblock) ReadAt(p []byte, off int64) (int, error) {
	return m.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext implements [api.Mblock].
func (m *cachedMblock) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	const op = ioctl.OpMblockRead
	keep := m.c.cache
	if keep == nil { // open looks whether it is live
		x, err := m.open(ctx, op)
		if err != nil {
			return 0, err
		}
		return x.ReadAtContext(ctx, p, off)
	}
	if err := m.live(op); err != nil {
		return 0, err
	}
	if len(p) == 0 || off < 0 || off >= m.length || int64(len(p)) > keep.limit/4 || !m.hold.Valid() {
		x, err := m.open(ctx, op)
		if err != nil {
			return 0, err
		}
		return x.ReadAtContext(ctx, p, off)
	}
	if !keep.read(m.key(), m.version, m.length, p, off) {
		x, err := m.open(ctx, op)
		if err != nil {
			return 0, err
		}
		if m.fill(ctx, x, p, off) != nil { // which may be of bytes that nobody asked for
			return x.ReadAtContext(ctx, p, off)
		}
	}
	if n := int(m.length - off); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (m *cachedMblock) key() cacheKey { return cacheKey{m.p.uuid, m.id} }

// fill reads whole blocks around what is wanted, keeps them, and copies into p what
// it takes of them. They are kept only if the credit was held all the time: else
// they may be of another object.
func (m *cachedMblock) fill(ctx context.Context, x *mblock, p []byte, off int64) error {
	from := off &^ (cacheBlock - 1)
	to := min((off+int64(len(p))+cacheBlock-1)&^(cacheBlock-1), m.length)
	buf := p[:min(to-from, int64(len(p)))]
	if from != off || to-off > int64(len(p)) {
		buf = make([]byte, to-from)
	}
	n, err := x.ReadAtContext(ctx, buf, from)
	if n < len(buf) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if m.hold.Valid() {
		m.c.cache.put(m.key(), m.version, m.length, buf, from)
	}
	if &buf[0] != &p[0] {
		copy(p, buf[off-from:])
	}
	return nil
}
