package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// mblock implements [api.Mblock].
type mblock struct {
	object
	// writing has a token while a Write is under way: a Write's pieces stay
	// together.
	writing chan struct{}
	// lost is set when what became of a write is unknown, or one failed and a
	// later one did not: the order of what is written is then another one.
	lost atomic.Bool
	// capacity is what it was allocated with, in bytes, or 0: not known here.
	capacity int64
	written  atomic.Int64  // bytes, through this handle
	begun    atomic.Uint64 // writes that a queue was given
	failed   atomic.Int64  // of those, the ones that are known to have failed
	ahead    readAhead
}

// fits says whether a write of so many bytes is known to fit. If others write
// too it may not, which is no harm.
func (m *mblock) fits(n int) bool { return m.written.Load()+int64(n) <= m.capacity }

// Get implements [api.Object].
func (m *mblock) Get(ctx context.Context) (api.Object, error) {
	o, err := m.get(ctx)
	if err != nil {
		return nil, err
	}
	return o.mblock(), nil
}

func (m *mblock) sound(op ioctl.Op) error {
	if m.lost.Load() {
		return &api.Error{
			Code: api.EIO, Op: op.Name(), Object: m.id,
			Detail: "what became of an earlier write is unknown, or one failed and a later one did not: abort the mblock",
		}
	}
	return m.live(op)
}

// Commit implements [api.Object].
func (m *mblock) Commit(ctx context.Context) error {
	if err := m.sound(ioctl.OpObjectCommit); err != nil {
		return err
	}
	err := m.commit(ctx)
	m.ahead.afresh()
	return err
}

// Write implements [api.Mblock].
func (m *mblock) Write(ctx context.Context, p []byte) (int, error) {
	return m.write(ctx, memory{p: p, n: len(p)})
}

// write appends what is in memory.
func (m *mblock) write(ctx context.Context, from memory) (int, error) {
	const op = ioctl.OpMblockWrite
	if ctx.Err() != nil {
		return 0, expired(ctx, op.Name())
	}
	select {
	case m.writing <- struct{}{}:
		defer func() { <-m.writing }()
	case <-ctx.Done():
		return 0, expired(ctx, op.Name())
	}
	done := 0
	err := m.sound(op)
	if err == nil {
		err = m.writeAll(ctx, from, &done)
	}
	m.written.Add(int64(done))
	if api.CodeOf(err) == api.EUNKNOWN {
		m.lost.Store(true)
	}
	return done, err
}

// writeAll writes over the ring if there is one and it can, else over the
// socket.
func (m *mblock) writeAll(ctx context.Context, from memory, done *int) error {
	if r := m.l.ring(); r != nil {
		if err := r.write(ctx, m, from, done); !errors.Is(err, errNoRegion) {
			return err
		}
	}
	for {
		n, err := m.writePiece(ctx, from, *done)
		*done += n
		if err != nil || *done == from.n {
			return err
		}
		if err := m.sound(ioctl.OpMblockWrite); err != nil {
			return err
		}
	}
}

// writePiece writes what comes next, over the socket.
func (m *mblock) writePiece(ctx context.Context, from memory, at int) (int, error) {
	const op = ioctl.OpMblockWrite
	n, window, hold, err := m.l.piece(ctx, op, from, at)
	if lostIn(err) != nil {
		return 0, stale(op)
	}
	if err != nil {
		return 0, err
	}
	defer hold.release()
	req := &ioctl.MblockWrite{Mblock: m.h, Total: uint64(from.n - at)}
	switch {
	case window.Arena == 0:
		req.Data = ioctl.InlinePayload(from.p[at : at+n])
	case hold != nil:
		copy(hold.mem, from.p[at:at+n])
		fallthrough
	default:
		req.Data.Window = window
	}
	reply := &ioctl.MblockWritten{}
	if err := m.exchange(ctx, op, req, reply, hold, nil); err != nil {
		return 0, err
	}
	if int(reply.N) != n {
		return 0, shortWrite(reply.N, n)
	}
	return n, nil
}

func shortWrite(n uint32, want int) error {
	return api.Errorf(api.EPROTO, ioctl.OpMblockWrite.Name(), "the daemon wrote %d of %d bytes and says all is well", n, want)
}

// ReadAt implements [io.ReaderAt].
func (m *mblock) ReadAt(p []byte, off int64) (int, error) {
	return m.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext implements [api.Mblock].
func (m *mblock) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return m.read(ctx, memory{p: p, n: len(p)}, off)
}

// read reads into memory.
func (m *mblock) read(ctx context.Context, to memory, off int64) (int, error) {
	const op = ioctl.OpMblockRead
	if err := m.live(op); err != nil {
		return 0, err
	}
	done := 0
	if to.b == nil {
		n, eof, ok := m.ahead.read(ctx, m, to.p, off)
		if done = n; ok {
			if eof {
				return n, io.EOF
			}
			return n, nil
		}
	}
	eof, err := read(ctx, &m.handle, to, off, &done)
	if lostIn(err) != nil && to.b == nil {
		err = m.elsewhere(ctx, op, err, func(h *handle) (err error) {
			eof, err = read(ctx, h, to, off, &done)
			return err
		})
	}
	if err == nil && eof {
		err = io.EOF
	}
	return done, err
}

// read reads into memory what is not done yet, and says whether it met the end.
// off is where the memory begins.
func read(ctx context.Context, h *handle, to memory, off int64, done *int) (eof bool, err error) {
	if r := h.l.ring(); r != nil {
		if eof, err := r.read(ctx, h, to, off, done); !errors.Is(err, errNoRegion) {
			return eof, err
		}
	}
	for {
		n, eof, err := readPiece(ctx, h, to, *done, off)
		*done += n
		switch {
		case err != nil || eof || *done == to.n:
			return eof, err
		case n == 0:
			return false, readNothing()
		}
	}
}

func readNothing() error {
	return api.Errorf(api.EPROTO, ioctl.OpMblockRead.Name(), "the daemon read nothing and says all is well")
}

// readPiece reads what comes next, over the socket.
func readPiece(ctx context.Context, h *handle, to memory, at int, off int64) (n int, eof bool, err error) {
	const op = ioctl.OpMblockRead
	want, window, hold, err := h.l.piece(ctx, op, to, at)
	if err != nil {
		return 0, false, err
	}
	defer hold.release()
	req := &ioctl.MblockRead{Mblock: h.h, Offset: off + int64(at), Into: window}
	reply := &ioctl.MblockReadReply{}
	err = h.l.exchange(ctx, op, req, reply, hold, func() {
		if window.Arena == 0 {
			n = copy(to.p[at:at+want], reply.Data)
		}
	})
	switch {
	case err != nil:
		return 0, false, err
	case int64(reply.N) > int64(want) || window.Arena == 0 && n != int(reply.N):
		return 0, false, api.Errorf(api.EPROTO, op.Name(), "the daemon read %d bytes of %d asked for", reply.N, want)
	case hold != nil:
		copy(to.p[at:], hold.mem[:reply.N])
	}
	return int(reply.N), reply.EOF, nil
}

// WriteTo implements [io.WriterTo].
func (m *mblock) WriteTo(w io.Writer) (int64, error) {
	const op = ioctl.OpMblockRead
	if err := m.live(op); err != nil {
		return 0, err
	}
	ctx := context.Background()
	c := copying{w: w, buf: make([]byte, chunk)}
	err := c.from(ctx, &m.handle)
	if lostIn(err) != nil {
		err = m.elsewhere(ctx, op, err, func(h *handle) error { return c.from(ctx, h) })
	}
	if err == nil {
		err = c.err
	}
	return c.done, err
}

// copying copies an mblock to a writer.
type copying struct {
	w    io.Writer
	buf  []byte
	done int64
	err  error // the writer's
}

// from copies what is not done yet. It returns what kept it from reading.
func (c *copying) from(ctx context.Context, h *handle) error {
	if r := h.l.ring(); r != nil {
		if ended, err := c.ahead(ctx, r, h); ended {
			return err
		}
	}
	for c.err == nil {
		n := 0
		eof, err := read(ctx, h, memory{p: c.buf, n: len(c.buf)}, c.done, &n)
		if lostIn(err) != nil {
			return err
		}
		if n > 0 {
			n, c.err = c.w.Write(c.buf[:n])
			c.done += int64(n)
		}
		if err != nil || eof {
			return err
		}
	}
	return nil
}
