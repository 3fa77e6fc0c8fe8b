package client

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// object is what mblocks and mlogs have in common.
type object struct {
	handle
	id layout.ObjectID
}

// ID implements [api.Object].
func (o *object) ID() layout.ObjectID { return o.id }

// Info implements [api.Object].
func (o *object) Info(ctx context.Context) (api.ObjectInfo, error) {
	if err := o.live(ioctl.OpObjectInfo); err != nil {
		return api.ObjectInfo{}, err
	}
	reply := &ioctl.ObjectReply{}
	err := o.c.do(ctx, ioctl.OpObjectInfo, &ioctl.Target{Handle: o.h}, reply)
	return reply.Info, err
}

func (o *object) get(ctx context.Context) (*ioctl.Opened, error) {
	if err := o.live(ioctl.OpObjectGet); err != nil {
		return nil, err
	}
	reply := &ioctl.Opened{}
	return reply, o.c.do(ctx, ioctl.OpObjectGet, &ioctl.Target{Handle: o.h}, reply)
}

// Put implements [api.Object].
func (o *object) Put() error {
	ctx, cancel := polite()
	defer cancel()
	return o.close(ctx, 0)
}

// end makes a request that ends the handle if it succeeds; while it is under
// way nobody else can end it.
func (o *object) end(ctx context.Context, op ioctl.Op) error {
	if o.ended.Swap(true) {
		return api.Errorf(api.EBADF, op.Name(), "the handle was given up")
	}
	err := o.c.do(ctx, op, &ioctl.Target{Handle: o.h}, &ioctl.Empty{})
	if err != nil {
		o.ended.Store(false)
	}
	return err
}

// Abort implements [api.Object].
func (o *object) Abort(ctx context.Context) error { return o.end(ctx, ioctl.OpObjectAbort) }

// Delete implements [api.Object].
func (o *object) Delete(ctx context.Context) error { return o.end(ctx, ioctl.OpObjectDelete) }

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

func newMblock(c *Conn, o *ioctl.Opened) *mblock {
	return &mblock{
		object:  object{handle: handle{c: c, h: o.Handle}, id: o.ID},
		writing: make(chan struct{}, 1),
	}
}

// Get implements [api.Object].
func (m *mblock) Get(ctx context.Context) (api.Object, error) {
	reply, err := m.get(ctx)
	if err != nil {
		return nil, err
	}
	return newMblock(m.c, reply), nil
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
	return m.do(ctx, ioctl.OpObjectCommit)
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
	n, hold, err := m.c.piece(ctx, op, len(p))
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
	if err := m.c.exchange(ctx, op, req, reply, hold, nil); err != nil {
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
	for {
		n, eof, err := m.readPiece(ctx, p[done:], off+int64(done))
		done += n
		switch {
		case err != nil:
			return done, err
		case eof:
			return done, io.EOF
		case done == len(p):
			return done, nil
		case n == 0:
			return done, api.Errorf(api.EPROTO, op.Name(), "the daemon read nothing and says all is well")
		}
	}
}

// readPiece reads the beginning of p.
func (m *mblock) readPiece(ctx context.Context, p []byte, off int64) (n int, eof bool, err error) {
	const op = ioctl.OpMblockRead
	want, hold, err := m.c.piece(ctx, op, len(p))
	if err != nil {
		return 0, false, err
	}
	defer hold.release()
	req := &ioctl.MblockRead{Mblock: m.h, Offset: off, Into: ioctl.Window{Length: uint32(want)}}
	if hold != nil {
		req.Into = hold.window(want)
	}
	reply := &ioctl.MblockReadReply{}
	err = m.c.exchange(ctx, op, req, reply, hold, func() {
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
	buf := make([]byte, chunk)
	var done int64
	for {
		n, err := m.ReadAt(buf, done)
		if n > 0 {
			k, werr := w.Write(buf[:n])
			done += int64(k)
			if werr != nil {
				return done, werr
			}
		}
		if err == io.EOF { //nolint:errorlint // ReadAt returns it bare
			return done, nil
		}
		if err != nil {
			return done, err
		}
	}
}
