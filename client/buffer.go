package client

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// MaxBuffer is the largest size of a [Buffer] in bytes.
const MaxBuffer = 1 << 30

// Buffer is memory that the program shares with the daemon: what is written from
// it and read into it is not copied. It is borrowed from a connection, with
// [Conn.Borrow], and used with what that connection gave; when the connection
// breaks it is of no more use, but its bytes stay until Release. It lies on huge
// pages where the system has them for shared memory.
//
// One operation uses a buffer at a time: beginning another meanwhile is EBUSY.
// While an operation is under way its bytes are the daemon's: what is changed in
// them before a write has ended may be written or not, and they are not checked
// against each other.
type Buffer struct {
	l      *link
	region *region
	size   int
	length atomic.Int64
	// state counts the requests that use the buffer, and has released when the
	// program has given it up. The last of all gives the memory back.
	state atomic.Int64
}

const released = 1 << 32

const opBorrow = "borrow"

// Borrow borrows a buffer of size bytes, 1 to [MaxBuffer]. It takes a whole
// number of pages of 4096 bytes from what the daemon lets a session share
// (HelloReply.ArenaTotal in package ioctl, by default 64 MiB, in few pieces):
// EAGAIN if there is no room, until others are released. Borrowing is not for
// each operation: borrow once, use again. Safe for concurrent use, as are the
// methods of different buffers; those of one buffer are for one goroutine at a
// time, but for Release.
func (c *Conn) Borrow(ctx context.Context, size int) (*Buffer, error) {
	if size < 1 || size > MaxBuffer {
		return nil, api.Errorf(api.EINVAL, opBorrow, "a buffer of %d bytes: want 1 to %d", size, MaxBuffer)
	}
	var b *Buffer
	err := c.run(ctx, ioctl.OpArena, again, func(l *link) error {
		r, err := l.borrow(ctx, size)
		if err != nil {
			return err
		}
		b = &Buffer{l: l, region: r, size: size}
		b.length.Store(int64(size))
		return nil
	})
	return b, err
}

// lentShare is the part of a session's arenas that the first arena of buffers
// has.
const lentShare = 4

// borrow takes a region that the program keeps.
func (l *link) borrow(ctx context.Context, size int) (*region, error) {
	whole := int64(pagesOf(size)) * page
	if whole >= hugePage {
		whole = (whole + hugePage - 1) &^ (hugePage - 1)
	}
	sizes := []int64{whole}
	if most := int64(l.limits.ArenaTotal / lentShare); most > whole {
		sizes = []int64{most &^ (page - 1), whole}
	}
	for {
		if r := l.lent.try(size); r != nil {
			return r, nil
		}
		grown, err := l.lent.growBy(ctx, sizes)
		switch {
		case grown:
		case lostIn(err) != nil || ctx.Err() != nil || !errors.Is(err, api.EAGAIN) && !errors.Is(err, api.EINVAL) && !errors.Is(err, api.ENOMEM):
			return nil, err
		default:
			return nil, &api.Error{
				Code: api.EAGAIN, Op: opBorrow, Want: int64(size), Err: err,
				Detail: "there is no room for the buffer in what the daemon shares with this session: release others",
			}
		}
	}
}

// check refuses what the buffer cannot be used for: with a handle of another
// connection, or after Release.
func (b *Buffer) check(op ioctl.Op, l *link) error {
	switch {
	case b == nil:
		return api.Errorf(api.EINVAL, op.Name(), "no buffer")
	case b.state.Load()&released != 0:
		return api.Errorf(api.EBADF, op.Name(), "the buffer was released")
	case b.l != l:
		return api.Errorf(api.EINVAL, op.Name(), "the buffer is of another connection than the handle, or of one that is gone: borrow another")
	}
	return nil
}

// use takes the buffer for an operation, which calls done.
func (b *Buffer) use(op ioctl.Op) error {
	if b.state.CompareAndSwap(0, 1) {
		return nil
	}
	if b.state.Load()&released != 0 {
		return api.Errorf(api.EBADF, op.Name(), "the buffer was released")
	}
	return api.Errorf(api.EBUSY, op.Name(), "another operation uses the buffer: wait for it")
}

// again counts one more request of the operation that uses the buffer.
func (b *Buffer) again() *Buffer {
	b.state.Add(1)
	return b
}

// done ends a request's use of the buffer; nil is none.
func (b *Buffer) done() {
	if b != nil && b.state.Add(-1) == released {
		b.region.drop()
	}
}

// window is where n bytes from at lie.
func (b *Buffer) window(at, n int) ioctl.Window {
	w := b.region.window(n)
	w.Offset += uint32(at)
	return w
}

// Bytes returns the buffer's bytes, Len of them; nil after Release. They must
// not be touched after Release: they are another's then.
func (b *Buffer) Bytes() []byte {
	if b.state.Load()&released != 0 {
		return nil
	}
	n := b.Len()
	return b.region.mem[:n:n]
}

// Len returns how many bytes an operation writes from the buffer, or reads into
// it at most.
func (b *Buffer) Len() int { return int(b.length.Load()) }

// Cap returns how many bytes there are: what was borrowed.
func (b *Buffer) Cap() int { return b.size }

// SetLen sets what Len returns, 0 to Cap; EINVAL.
func (b *Buffer) SetLen(n int) error {
	if n < 0 || n > b.size {
		return api.Errorf(api.EINVAL, opBorrow, "a length of %d bytes: the buffer has %d", n, b.size)
	}
	b.length.Store(int64(n))
	return nil
}

// Release gives the buffer up: EBADF if that was done before. An operation that
// uses it goes on to its end, and the memory is given back then.
func (b *Buffer) Release() error {
	for {
		v := b.state.Load()
		if v&released != 0 {
			return api.Errorf(api.EBADF, opBorrow, "the buffer was released before")
		}
		if b.state.CompareAndSwap(v, v|released) {
			if v == 0 {
				b.region.drop()
			}
			return nil
		}
	}
}

// BufferIO is what the mblocks of a connection have beside [api.Mblock]: reads
// and writes that copy nothing. It is had by a type assertion.
type BufferIO interface {
	// ReadBuffer reads up to b.Len() bytes at off into the buffer, and returns
	// how many; see [api.Mblock.ReadAtContext]. It is not made again when the
	// connection breaks. Errors beside: EBUSY, EINVAL and EBADF as [Buffer]
	// says.
	ReadBuffer(ctx context.Context, b *Buffer, off int64) (int, error)
	// WriteBuffer appends b.Len() bytes from the buffer; see
	// [api.Mblock.Write].
	WriteBuffer(ctx context.Context, b *Buffer) (int, error)
}

var _ BufferIO = (*mblock)(nil)

// ReadBuffer implements [BufferIO].
func (m *mblock) ReadBuffer(ctx context.Context, b *Buffer, off int64) (int, error) {
	return m.with(ioctl.OpMblockRead, b, func(to memory) (int, error) { return m.read(ctx, to, off) })
}

// WriteBuffer implements [BufferIO].
func (m *mblock) WriteBuffer(ctx context.Context, b *Buffer) (int, error) {
	return m.with(ioctl.OpMblockWrite, b, func(from memory) (int, error) { return m.write(ctx, from) })
}

// with uses a buffer.
func (m *mblock) with(op ioctl.Op, b *Buffer, f func(memory) (int, error)) (int, error) {
	if err := m.live(op); err != nil {
		return 0, err
	}
	if err := b.check(op, m.l); err != nil {
		return 0, err
	}
	if err := b.use(op); err != nil {
		return 0, err
	}
	defer b.done()
	return f(memory{b: b, n: b.Len()})
}
