package client

import (
	"context"
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
	// lost is set when what became of a write is unknown: what follows it
	// might be written before it.
	lost atomic.Bool
}

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
			Detail: "what became of an earlier write is unknown: abort the mblock",
		}
	}
	return m.live(op)
}

// Commit implements [api.Object].
func (m *mblock) Commit(ctx context.Context) error {
	if err := m.sound(ioctl.OpObjectCommit); err != nil {
		return err
	}
	return m.commit(ctx)
}

// Write implements [api.Mblock].
func (m *mblock) Write(ctx context.Context, p []byte) (int, error) {
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
	for {
		if err := m.sound(op); err != nil {
			return done, err
		}
		n, err := m.writePiece(ctx, p[done:])
		done += n
		if err != nil {
			if api.CodeOf(err) == api.EUNKNOWN {
				m.lost.Store(true)
			}
			return done, err
		}
		if done == len(p) {
			return done, nil
		}
	}
}

// writePiece writes the beginning of p.
func (m *mblock) writePiece(ctx context.Context, p []byte) (int, error) {
	const op = ioctl.OpMblockWrite
	n, hold, err := m.l.piece(ctx, op, len(p))
	if lostIn(err) != nil {
		return 0, stale(op)
	}
	if err != nil {
		return 0, err
	}
	defer hold.release()
	req := &ioctl.MblockWrite{Mblock: m.h, Total: uint64(len(p))}
	if hold == nil {
		req.Data = ioctl.InlinePayload(p[:n])
	} else {
		copy(hold.mem, p[:n])
		req.Data.Window = hold.window(n)
	}
	reply := &ioctl.MblockWritten{}
	if err := m.exchange(ctx, op, req, reply, hold, nil); err != nil {
		return 0, err
	}
	if int(reply.N) != n {
		return 0, api.Errorf(api.EPROTO, op.Name(), "the daemon wrote %d of %d bytes and says all is well", reply.N, n)
	}
	return n, nil
}

// ReadAt implements [io.ReaderAt].
func (m *mblock) ReadAt(p []byte, off int64) (int, error) {
	return m.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext implements [api.Mblock].
func (m *mblock) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	const op = ioctl.OpMblockRead
	if err := m.live(op); err != nil {
		return 0, err
	}
	done := 0
	eof, err := read(ctx, &m.handle, p, off, &done)
	if lostIn(err) != nil {
		err = m.elsewhere(ctx, op, err, func(h *handle) (err error) {
			eof, err = read(ctx, h, p, off, &done)
			return err
		})
	}
	if err == nil && eof {
		err = io.EOF
	}
	return done, err
}

// read reads into p what is not done yet, and says whether it met the end. off
// is where p begins.
func read(ctx context.Context, h *handle, p []byte, off int64, done *int) (eof bool, err error) {
	for {
		n, eof, err := readPiece(ctx, h, p[*done:], off+int64(*done))
		*done += n
		switch {
		case err != nil || eof || *done == len(p):
			return eof, err
		case n == 0:
			return false, api.Errorf(api.EPROTO, ioctl.OpMblockRead.Name(), "the daemon read nothing and says all is well")
		}
	}
}

// readPiece reads the beginning of p.
func readPiece(ctx context.Context, h *handle, p []byte, off int64) (n int, eof bool, err error) {
	const op = ioctl.OpMblockRead
	want, hold, err := h.l.piece(ctx, op, len(p))
	if err != nil {
		return 0, false, err
	}
	defer hold.release()
	req := &ioctl.MblockRead{Mblock: h.h, Offset: off, Into: ioctl.Window{Length: uint32(want)}}
	if hold != nil {
		req.Into = hold.window(want)
	}
	reply := &ioctl.MblockReadReply{}
	err = h.l.exchange(ctx, op, req, reply, hold, func() {
		n = copy(p[:want], reply.Data)
	})
	switch {
	case err != nil:
		return 0, false, err
	case int64(reply.N) > int64(want) || hold == nil && n != int(reply.N):
		return 0, false, api.Errorf(api.EPROTO, op.Name(), "the daemon read %d bytes of %d asked for", reply.N, want)
	case hold != nil:
		n = copy(p, hold.mem[:reply.N])
	}
	return n, reply.EOF, nil
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
	for c.err == nil {
		n := 0
		eof, err := read(ctx, h, c.buf, c.done, &n)
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
