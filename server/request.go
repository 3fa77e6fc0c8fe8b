package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// buffer holds one message, or the data of one.
type buffer struct{ mem []byte }

// dataAt is where the data begins in those requests that carry bulk data. They
// are received so that it lies aligned for direct I/O.
const dataAt = ioctl.HeaderSize + 16 + 12

const align = 4096

var buffers = sync.Pool{New: func() any {
	mem := make([]byte, bufferBytes)
	skip := -int(uintptr(unsafe.Pointer(&mem[0]))) & (align - 1)
	return &buffer{mem: mem[skip : skip+align+ioctl.MaxMessage]}
}}

func getBuffer() *buffer  { return buffers.Get().(*buffer) }
func putBuffer(b *buffer) { buffers.Put(b) }

// receive returns where a message is received.
func (b *buffer) receive() []byte { return b.mem[align-dataAt:][:ioctl.MaxMessage] }

// inline says whether a request has data within the message, and so keeps the
// buffer that it came in.
func inline(m ioctl.Message) bool {
	switch m := m.(type) {
	case *ioctl.MblockWrite:
		return m.Data.Arena == 0
	case *ioctl.MblockPut:
		return m.Data.Arena == 0
	case *ioctl.AppendRecord:
		return m.Data.Arena == 0
	case *ioctl.RootsSet:
		return m.Roots.Arena == 0
	case *ioctl.CommitMany:
		return m.Roots.Arena == 0
	}
	return false
}

// request is one request in flight.
type request struct {
	task  // its turn
	s     *session
	op    ioctl.Op
	tag   uint64
	ctx   context.Context
	began time.Time

	buf   *buffer // the message's, if the request keeps it
	data  *buffer // of the reply's data
	fd    int     // goes with the reply, or -1
	used  []*uhandle.Entry[resource]
	arena *arena      // in use
	pool  *activePool // for its counters
	// looked is an object that was looked up by its id, and so in use for a moment.
	looked layout.ObjectID
	fresh  bool   // the object was allocated by this request, under an id that was never given before
	bytes  uint64 // of data

	admitted bool  // it is reserved: all are but those that mustServe
	buffers  int64 // bytes of messages that it has reserved
	io       int64 // bytes of I/O
}

// serve does the request, answers it, and lets go of what it used.
func (r *request) serve(m ioctl.Message) {
	reply, err := handlers[r.op].run(r, m)
	if err != nil {
		err = r.dress(err)
	}
	took := r.s.srv.clock.Now().Sub(r.began)
	r.s.srv.ops.add(r.op, took, r.bytes, err != nil)
	if r.pool != nil {
		r.pool.ops.add(r.op, took, r.bytes, err != nil)
	}
	// Before the reply: with it the tag is the client's again.
	r.s.unregister(r.tag)
	r.letGo()
	r.answer(reply, err)
}

// refuse answers a request that was not begun.
func (r *request) refuse(err error) {
	r.s.unregister(r.tag)
	r.answer(nil, r.dress(err))
}

// answer sends the answer and lets go of what that took. A client that does not
// read keeps no turn.
func (r *request) answer(reply ioctl.Message, err error) {
	r.s.send(r.op, r.tag, reply, err, r.fd, func() { r.s.srv.fair.end(&r.task) })
	if r.fd >= 0 {
		_ = unix.Close(r.fd) // memory has nothing to write back
		r.s.unreserve(Descriptors, 1)
	}
	for _, b := range []*buffer{r.buf, r.data} {
		if b != nil {
			putBuffer(b)
		}
	}
}

// dress puts the operation into an error that does not name one.
func (r *request) dress(err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return &api.Error{Code: api.CodeOf(err), Op: r.op.Name(), Err: err}
	}
	if e.Op == "" {
		e.Op = r.op.Name()
	}
	return err
}

// letGo ends the request's uses. What was ended meanwhile is released here if
// this was its last user.
func (r *request) letGo() {
	if r.arena != nil {
		r.arena.unuse()
	}
	for _, e := range r.used {
		if r.s.table.Done(e) {
			r.s.release(e.Value)
		}
		// An object of a session that ended may have waited for this request.
		e.Value.home().sweep(r.s.srv, e.Value.object())
	}
	if r.looked != 0 {
		r.pool.sweep(r.s.srv, r.looked)
	}
	r.used = nil
}

// reply sends an answer: m, or err if that is not nil.
func (s *session) reply(op ioctl.Op, tag uint64, m ioctl.Message, err error, fd int) {
	s.send(op, tag, m, err, fd, func() {})
}

// send is reply; full is called if there is no room for the answer, before it
// waits for that.
func (s *session) send(op ioctl.Op, tag uint64, m ioctl.Message, err error, fd int, full func()) {
	buf := getBuffer()
	defer putBuffer(buf)
	b := s.encode(buf.mem[:0], op, tag, m, err)
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	sent, err := s.trySend(b, oob)
	if err == nil && !sent {
		full()
		_, _, err = s.conn.WriteMsgUnix(b, oob, nil)
	}
	if err != nil {
		s.end(ioctl.SourceSocket) // nobody is there to hear
	}
}

// encode appends an answer to b.
func (s *session) encode(b []byte, op ioctl.Op, tag uint64, m ioctl.Message, err error) []byte {
	h := ioctl.Header{Op: op, Flags: ioctl.FlagReply, Tag: tag}
	if err != nil {
		h.Flags |= ioctl.FlagError
		e := ioctl.NewError(err)
		if s.features.Load()&ioctl.FeatureRefusal == 0 {
			e.Refusal = nil
		}
		m = e
	}
	out, err := ioctl.Append(b, h, m)
	if err == nil {
		return out
	}
	// A name that the engine let grow too long, say: the client must not wait
	// for ever.
	s.srv.log.Error("answer does not fit", slog.String("op", op.String()), slog.Any("error", err))
	h.Flags |= ioctl.FlagError
	out, err = ioctl.Append(b, h, ioctl.NewError(&api.Error{
		Code: api.EOVERFLOW, Op: op.Name(), Detail: "it was done, but the answer does not fit into a message", Err: err,
	}))
	if err != nil {
		panic("server: an error does not fit into a message: " + err.Error())
	}
	return out
}

// trySend sends a message if there is room for it now. Others may be sending: a
// message goes whole or not at all.
func (s *session) trySend(b, oob []byte) (sent bool, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return false, err
	}
	cerr := raw.Control(func(fd uintptr) {
		_, err = unix.SendmsgN(int(fd), b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	switch {
	case cerr != nil:
		return false, cerr
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return false, nil
	}
	return err == nil, err
}

// use looks a handle up for as long as the request lasts.
func use[T resource](r *request, h ioctl.Handle, kinds ...uhandle.Kind) (T, error) {
	var none T
	e, err := r.s.table.Use(uhandle.Handle(h), kinds...)
	if err != nil {
		return none, r.s.badHandle(r.op, h)
	}
	r.used = append(r.used, e)
	if e.Value.isFenced() {
		return none, staleHandle(h)
	}
	v, ok := e.Value.(T)
	if !ok {
		panic("server: a handle's kind and its value do not agree")
	}
	if r.pool = v.home(); r.pool == nil {
		panic("server: a handle of no pool")
	}
	return v, nil
}

// entry returns the table's entry of the handle that use looked up last.
func (r *request) entry() *uhandle.Entry[resource] { return r.used[len(r.used)-1] }

// give makes a handle for v, or releases it.
func (r *request) give(kind uhandle.Kind, v resource) (ioctl.Handle, error) {
	v.home().handles.Add(1)
	if err := r.s.roomForHandle(); err != nil {
		r.s.release(v)
		return 0, err
	}
	h, err := r.s.table.Add(kind, uint64(v.object()), v)
	if err != nil {
		r.s.release(v)
		return 0, r.s.noHandle(err)
	}
	c := v.home().credits
	if r.fresh { // hardly anybody has guessed its id, and a loop must not wait
		return ioctl.Handle(h), r.claimUnder(c.atOnce, h, v)
	}
	return ioctl.Handle(h), r.claim(h, v)
}

// claim takes the credit that a new handle needs, or ends the handle.
func (r *request) claim(h uhandle.Handle, v resource) error { return r.claimUnder(r.ctx, h, v) }

func (r *request) claimUnder(ctx context.Context, h uhandle.Handle, v resource) error {
	err := v.home().credits.opened(ctx, r.s, v)
	if err == nil {
		return nil
	}
	if e, uerr := r.s.table.Use(h, h.Kind()); uerr == nil {
		r.s.table.End(e)
		if r.s.table.Done(e) {
			r.s.release(v)
		}
	}
	return err
}

// noHandle is the error of a request for which the table has no handle.
func (s *session) noHandle(err error) error {
	if errors.Is(err, uhandle.ErrFull) {
		return api.Errorf(api.ENOMEM, "", "the session has %d handles, as many as it may", s.srv.limits.Handles)
	}
	return api.Errorf(api.ECANCELED, "", "the session has ended")
}

// giveChild makes a handle for what was opened through a pool's handle.
func (r *request) giveChild(kind uhandle.Kind, v child) (ioctl.Handle, error) {
	v.parent().children.Add(1)
	return r.give(kind, v)
}

// window returns the memory that a request's window names: in the arena, or,
// for the reply's data, of the request's own.
func (r *request) window(w ioctl.Window) ([]byte, error) {
	if w.Arena == 0 {
		if err := r.takeIO(int64(w.Length)); err != nil {
			return nil, err
		}
		if err := r.s.reserve(MessageBytes, bufferBytes); err != nil {
			return nil, err
		}
		r.buffers += bufferBytes
		r.data = getBuffer()
		return r.data.mem[:w.Length:w.Length], nil
	}
	a := r.s.arena(w.Arena)
	if a == nil {
		return nil, api.Errorf(api.EINVAL, "", "no arena %d", w.Arena)
	}
	mem, err := a.use(w)
	if err != nil {
		return nil, err
	}
	r.arena = a
	return mem, r.takeIO(int64(w.Length))
}

// payload returns the data of a request. What is in an arena may change while
// it is read.
func (r *request) payload(p *ioctl.Payload) ([]byte, error) {
	if p.Arena == 0 {
		return p.Inline, r.takeIO(int64(len(p.Inline)))
	}
	return r.window(p.Window)
}

// takeIO takes bytes of the session's I/O for as long as the request lasts.
func (r *request) takeIO(n int64) error {
	if err := r.s.io.take(r.s, IOBytes, n); err != nil {
		return err
	}
	r.io += n
	return nil
}

// roots returns the roots that a request carries. They are copied out before
// anything is read from them.
func (r *request) roots(p *ioctl.Payload) ([]api.Root, error) {
	if p.Length > ioctl.MaxRootsBytes {
		return nil, api.Errorf(api.EINVAL, "", "%d bytes of roots: at most %d", p.Length, ioctl.MaxRootsBytes)
	}
	b, err := r.payload(p)
	if err != nil {
		return nil, err
	}
	if p.Arena != 0 {
		b = append([]byte(nil), b...)
	}
	roots, err := ioctl.ParseRoots(b)
	if err != nil {
		return nil, &api.Error{Code: api.EPROTO, Detail: "the list of roots cannot be read", Err: err}
	}
	return roots, nil
}
