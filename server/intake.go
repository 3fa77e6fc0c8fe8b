package server

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// read takes requests until the session ends.
func (s *session) read() {
	in, err := newIntake(s.conn)
	for err == nil {
		err = in.next()
		s.mu.Lock()
		draining := s.draining
		s.mu.Unlock()
		switch {
		case err != nil && draining:
			return
		case err != nil || in.n == 0:
			s.end(ioctl.SourceSocket)
			return
		}
		msg := in.buf.receive()[:in.n]
		taken, cost := s.taken.Load(), messageCost
		if in.n >= ioctl.HeaderSize && ioctl.Op(binary.LittleEndian.Uint16(msg[4:])) == ioctl.OpCredit {
			cost = creditCost * time.Duration(ioctl.CreditsIn(msg))
		}
		kept, err := s.take(in.buf, msg, in.oob, in.flags)
		if err != nil {
			s.breach(msg, err)
			in.done()
			return
		}
		if !kept {
			in.done()
		}
		if s.taken.Load() == taken {
			s.dawdle(cost)
		}
	}
	s.end(ioctl.SourceSocket)
}

// intake receives a session's messages. It has a buffer only while there is a
// message in it: of thousands of sessions most are silent.
type intake struct {
	raw  syscall.RawConn
	from *ioctl.Receiver
	once func(fd uintptr) bool // tries to receive

	buf   *buffer // nil: none
	n     int     // bytes in it
	oob   []byte  // control messages
	flags int
	err   error
}

func newIntake(conn *net.UnixConn) (*intake, error) {
	raw, err := conn.SyscallConn()
	in := &intake{raw: raw, from: ioctl.NewReceiver(oobSize)}
	in.once = in.try
	return in, err
}

// next waits for a message. The caller gives its buffer away or calls done.
func (in *intake) next() error {
	if err := in.raw.Read(in.once); err != nil {
		return err
	}
	if in.err != nil {
		in.done()
	}
	return in.err
}

// try receives a message; false: there is none.
func (in *intake) try(fd uintptr) bool {
	in.buf = getBuffer()
	in.n, in.oob, in.flags, in.err = in.from.Receive(int(fd), in.buf.receive(), unix.MSG_CMSG_CLOEXEC)
	if in.err == unix.EAGAIN { //nolint:errorlint // it is no other, and comes with each message
		in.done()
		return false
	}
	return true
}

// done gives the buffer back.
func (in *intake) done() {
	putBuffer(in.buf)
	in.buf = nil
}

// breach ends the session for what its client sent.
func (s *session) breach(msg []byte, err error) {
	s.mu.Lock()
	if s.ended { // for another reason: what its socket still had is nobody's any more
		s.mu.Unlock()
		return
	}
	s.by = ioctl.SourceProtocol
	s.mu.Unlock()
	s.srv.complaints.Warn("client broke the protocol", s.who(), slog.Any("error", err))
	var op ioctl.Op
	var tag uint64
	if len(msg) >= ioctl.HeaderSize {
		op, tag = ioctl.Op(binary.LittleEndian.Uint16(msg[4:])), binary.LittleEndian.Uint64(msg[8:])
	}
	e := &api.Error{Code: api.EPROTO, Op: op.Name(), Detail: "the daemon does not listen to this session any more", Err: err}
	if errors.Is(err, errNotPeer) || errors.Is(err, errPeerGone) {
		e.Code = api.EPERM
	}
	// A client that does not read must not hold the session: what cannot be
	// sent at once is not sent.
	_ = s.conn.SetWriteDeadline(s.srv.clock.Now().Add(100 * time.Millisecond)) //nolint:errcheck // then Write fails
	s.reply(op, tag, nil, e, -1)
	s.end(ioctl.SourceProtocol)
}

// who is the session in the log.
func (s *session) who() slog.Attr {
	return slog.Group("session", slog.Uint64("id", s.id), slog.Int("pid", int(s.peer.pid)),
		slog.Uint64("uid", uint64(s.peer.uid)), slog.String("comm", s.peer.comm))
}

// take begins the request in msg, which lies in buf. It says whether the
// request keeps buf. An error is a breach of the protocol.
func (s *session) take(buf *buffer, msg, oob []byte, flags int) (kept bool, err error) {
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return false, errors.New("a message too long, or with descriptors")
	}
	if err := s.peer.check(oob); err != nil {
		if !errors.Is(err, errNotPeer) {
			return false, err
		}
		// Somebody else has the socket: a child, most likely. It gets an
		// answer if it can be given, and its parent is not harmed.
		s.srv.complaints.Warn("message from a stranger", s.who(), slog.Any("error", err))
		if h, herr := ioctl.ParseHeader(msg); herr == nil {
			s.reply(h.Op, h.Tag, nil, &api.Error{Code: api.EPERM, Op: h.Op.Name(), Err: err}, -1)
		}
		return false, nil
	}
	s.watch()
	h, err := ioctl.ParseHeader(msg)
	if err != nil {
		return false, err
	}
	if h.Flags != 0 {
		return false, errors.New("a reply from a client")
	}
	if s.greeted.Load() == (h.Op == ioctl.OpHello) {
		return false, errors.New("hello comes first, and once")
	}
	if h.Version != ioctl.Version && h.Op != ioctl.OpHello {
		return false, errors.New("a message of another version")
	}
	if !h.Op.Valid() {
		s.reply(h.Op, h.Tag, nil, api.Errorf(api.ENOTSUP, h.Op.String(), "the daemon does not know it"), -1)
		return false, nil
	}
	m := h.Op.NewRequest()
	if err := ioctl.Decode(m, msg[ioctl.HeaderSize:]); err != nil {
		return false, err
	}
	switch m := m.(type) {
	case *ioctl.Hello:
		s.greet(h, m)
		return false, nil
	case *ioctl.Cancel:
		s.cancelRequest(m.Tag)
		return false, nil
	case *ioctl.CreditMessage:
		if err := m.Agreed(s.features.Load()); err != nil {
			return false, err
		}
		s.credit(h, m)
		return false, nil
	}
	return s.start(h, m, buf)
}

// start runs a request once there is a slot for it.
func (s *session) start(h ioctl.Header, m ioctl.Message, buf *buffer) (kept bool, err error) {
	if !s.slot() {
		return false, nil
	}
	s.taken.Add(1)
	r := &request{s: s, op: h.Op, tag: h.Tag, fd: -1, began: s.srv.clock.Now()}
	r.kind, r.size = kindOf(h.Op, m)
	kept = inline(m)
	if err := r.admit(kept); err != nil && !r.mustServe() {
		<-s.slots
		s.reply(r.op, r.tag, nil, r.dress(err), -1)
		s.dawdle(messageCost)
		return false, nil
	}
	cancel, err := s.register(r, h.Deadline)
	if err != nil {
		r.dismiss()
		<-s.slots
		return false, err
	}
	if kept {
		r.buf = buf
	}
	s.requests.Add(1)
	over := func() {
		cancel()
		r.dismiss()
		<-s.slots
		s.requests.Done()
	}
	r.task.ctx = r.ctx
	r.do = func() {
		r.serve(m)
		over()
	}
	r.quit = func() {
		r.refuse(api.ContextError(r.op.Name(), context.Cause(r.ctx)))
		over()
	}
	s.srv.fair.submit(s.flow, &r.task)
	return kept, nil
}

// slot waits for a slot; false: the session has ended. Meanwhile nobody reads
// the socket, so it looks itself whether the client has left.
func (s *session) slot() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	look := time.NewTicker(hangupEvery)
	defer look.Stop()
	for {
		select {
		case s.slots <- struct{}{}:
			return true
		case <-s.ctx.Done():
			return false
		case <-look.C:
			if s.hungUp() {
				s.end(ioctl.SourceSocket)
				return false
			}
		}
	}
}

// hangupEvery is how often a reader that waits for a slot looks for the
// socket's end.
const hangupEvery = 500 * time.Millisecond

// hungUp says whether the other end of the socket is closed.
func (s *session) hungUp() bool {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	if err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	}); err != nil {
		return true
	}
	return gone
}

// register makes the request's context and lets it be cancelled by its tag.
func (s *session) register(r *request, deadlineMS uint32) (context.CancelFunc, error) {
	base := s.ctx
	if handlers[r.op].outlives {
		base = s.srv.hard
	}
	var cancel context.CancelFunc
	if deadlineMS != 0 {
		r.ctx, cancel = context.WithTimeout(base, time.Duration(deadlineMS)*time.Millisecond)
	} else {
		r.ctx, cancel = context.WithCancel(base)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.tags[r.tag]; taken {
		cancel()
		return nil, errors.New("a tag that is in use")
	}
	s.tags[r.tag] = cancel
	return cancel, nil
}

func (s *session) unregister(tag uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tags, tag)
}

// cancelRequest cancels a request in flight; one that is answered already is
// none.
func (s *session) cancelRequest(tag uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.tags[tag]; cancel != nil {
		cancel()
	}
}
