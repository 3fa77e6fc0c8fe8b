package client

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// Viewer is what committed mblocks have beside [api.Mblock] that are open under a
// read credit: see Options.Credits.
type Viewer interface {
	// View returns bytes of the mblock from off on without copying them: at most n,
	// at least one, which may be fewer than are there. The mblock is not deleted
	// before Release, also when its handle is given up before. io.EOF at the
	// mblock's end; other errors as ReadAtContext's.
	View(ctx context.Context, off int64, n int) (*View, error)
}

var _ Viewer = (*cachedMblock)(nil)

// View is bytes of an mblock. They are shared with others: nobody may change them.
type View struct {
	p    []byte
	m    *cachedMblock
	done atomic.Bool
}

// Bytes returns the bytes, which are not to be used after Release.
func (v *View) Bytes() []byte { return v.p }

// Release gives the bytes up. More than once is as once.
func (v *View) Release() {
	if !v.done.Swap(true) {
		v.m.unpin()
	}
}

// View implements [Viewer].
func (m *cachedMblock) View(ctx context.Context, off int64, n int) (*View, error) {
	const op = ioctl.OpMblockRead
	if err := m.live(op); err != nil {
		return nil, err
	}
	switch {
	case off < 0 || n < 1:
		return nil, api.Errorf(api.EINVAL, op.Name(), "a view of %d bytes at %d", n, off)
	case off >= m.length:
		return nil, io.EOF
	case !m.pin():
		return nil, api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	p, err := m.look(ctx, off, n)
	if err != nil {
		m.unpin()
		return nil, err
	}
	return &View{p: p, m: m}, nil
}

// look returns bytes that lie in one block.
func (m *cachedMblock) look(ctx context.Context, off int64, n int) ([]byte, error) {
	keep := m.c.cache
	if keep != nil && m.hold.Valid() {
		if p := keep.view(m.key(), m.version, off, n); len(p) > 0 {
			return p, nil
		}
	}
	from := off &^ (cacheBlock - 1)
	p := make([]byte, min(cacheBlock, m.length-from))
	x, err := m.open(ctx, ioctl.OpMblockRead)
	if err != nil {
		return nil, err
	}
	if got, err := x.ReadAtContext(ctx, p, from); got < len(p) {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if keep != nil && m.hold.Valid() {
		keep.put(m.key(), m.version, m.length, p, from)
	}
	p = p[off-from:]
	n = min(n, len(p))
	return p[:n:n], nil
}

// pin keeps the credit; false: it was given up.
func (m *cachedMblock) pin() bool {
	for {
		n := m.pins.Load()
		if n <= 0 {
			return false
		}
		if m.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// unpin is of who keeps the credit: the handle and each view. The last one releases
// it.
func (m *cachedMblock) unpin() {
	if m.pins.Add(-1) == 0 {
		release(m.hold)
	}
}
