package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// session is one connection.
type session struct {
	srv   *Server
	id    uint64
	conn  *net.UnixConn
	peer  *peer // set before the first request
	table *uhandle.Table[resource]
	slots chan struct{} // a token per request in flight

	// ctx ends with the session.
	ctx    context.Context
	cancel context.CancelFunc

	requests sync.WaitGroup
	watcher  sync.WaitGroup
	hello    bool // was said; the reader's own
	watched  bool // the watcher runs; the reader's own

	mu sync.Mutex
	// +checklocks:mu
	tags map[uint64]context.CancelFunc // requests in flight
	// +checklocks:mu
	arenas []*arena // by number less one; nil while one is being made
	// +checklocks:mu
	arenaBytes int64
	// +checklocks:mu
	pools map[*activePool]struct{} // ever opened
	// +checklocks:mu
	ended bool
	// +checklocks:mu
	by string // what ended it
	// +checklocks:mu
	endedAt time.Time
	// +checklocks:mu
	draining bool
}

func newSession(srv *Server, id uint64, conn *net.UnixConn) *session {
	s := &session{
		srv: srv, id: id, conn: conn,
		table: uhandle.New[resource](srv.limits.Handles, firstGeneration()),
		slots: make(chan struct{}, srv.limits.Requests),
		tags:  make(map[uint64]context.CancelFunc),
		pools: make(map[*activePool]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(srv.hard)
	return s
}

// firstGeneration returns a number that another session's handles hardly have.
func firstGeneration() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.NativeEndian.Uint32(b[:])
}

// refuse turns a client away that there is no session for.
func refuse(conn *net.UnixConn, sessions int) {
	err := api.Errorf(api.EAGAIN, ioctl.OpHello.Name(), "the daemon has %d sessions, as many as it may", sessions)
	b, e := ioctl.Append(nil, ioctl.Header{Op: ioctl.OpHello, Flags: ioctl.FlagReply | ioctl.FlagError}, ioctl.NewError(err))
	if e == nil {
		// An empty socket has room for it: this does not wait.
		_, _ = conn.Write(b) //nolint:errcheck // who does not hear it sees the end
	}
	_ = conn.Close() // nothing to lose
}

// run serves the session to its end, and releases what it held.
func (s *session) run() {
	defer s.cancel()
	p, err := identify(s.conn, s.srv.opt.noPeerPidfd)
	if err != nil {
		s.srv.log.Warn("client not identified", slog.Any("error", err))
		_ = s.conn.Close() // nothing to lose
		return
	}
	s.peer = p
	s.watch()
	s.silence(s.srv.clock.Now().Add(s.srv.limits.HelloTimeout))
	s.read()
	s.finish()
}

// watch ends the session when its process dies, as soon as it is known which
// that is. Only the reader calls it.
func (s *session) watch() {
	if s.watched || !s.peer.challenged {
		return
	}
	s.watched = true
	s.watcher.Go(func() {
		if s.peer.waitDead() {
			s.end(ByPidfd)
		}
	})
}

// end ends the session, for the first reason given: nothing more is taken and
// what is in flight is cancelled, unless it must run to its end. The reader
// does the rest.
func (s *session) end(by string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if s.by == "" {
		s.by = by
	}
	s.ended, s.endedAt = true, s.srv.clock.Now()
	s.cancel()
	_ = s.conn.Close() // nothing to lose
}

// silence lets the client be silent until then, or for ever.
func (s *session) silence(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.draining { // whose mark must stay
		_ = s.conn.SetReadDeadline(until) //nolint:errcheck // fails only when the session has ended
	}
}

// drain lets the session take nothing more and end when its requests have.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	// Wakes the reader, which sees why.
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only when it has ended
}

// greet answers hello. From then on the client may be silent as long as it
// likes.
func (s *session) greet(h ioctl.Header, m *ioctl.Hello) {
	if m.MinVersion > ioctl.Version || m.MaxVersion < ioctl.Version {
		s.reply(h.Op, h.Tag, nil, api.Errorf(api.ENOTSUP, h.Op.Name(),
			"the daemon speaks version %d, the client %d to %d", ioctl.Version, m.MinVersion, m.MaxVersion), -1)
		return
	}
	l := &s.srv.limits
	s.hello = true
	s.silence(time.Time{})
	s.srv.log.Debug("session opened", s.who())
	s.reply(h.Op, h.Tag, &ioctl.HelloReply{
		Version: ioctl.Version, MaxRequests: uint32(l.Requests), MaxHandles: uint32(l.Handles),
		MaxArenas: uint32(l.Arenas), ArenaDefault: uint64(l.ArenaDefault), ArenaTotal: uint64(l.ArenaSession),
	}, nil, -1)
}

// finish waits for a draining session's requests, ends it, and reaps.
func (s *session) finish() {
	s.mu.Lock()
	draining := s.draining && !s.ended
	s.mu.Unlock()
	if draining {
		s.waitIdle()
	}
	s.end(ByShutdown)
	s.reap()
	s.requests.Wait()
	s.dropArenas()
	s.peer.close()
	s.watcher.Wait()
}

// waitIdle returns when no request is in flight or the session has ended.
func (s *session) waitIdle() {
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
	}
}

// read takes requests until the session ends.
func (s *session) read() {
	oob := make([]byte, oobSize)
	buf := getBuffer()
	defer func() { putBuffer(buf) }()
	for {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(buf.receive(), oob)
		s.mu.Lock()
		draining := s.draining
		s.mu.Unlock()
		switch {
		case err != nil && draining:
			return
		case err != nil || n == 0:
			s.end(BySocket)
			return
		}
		msg := buf.receive()[:n]
		kept, err := s.take(buf, msg, oob[:oobn], flags)
		if err != nil {
			s.breach(msg, err)
			return
		}
		if kept {
			buf = getBuffer()
		}
	}
}

// breach ends the session for what its client sent.
func (s *session) breach(msg []byte, err error) {
	s.srv.log.Warn("client broke the protocol", s.who(), slog.Any("error", err))
	var op ioctl.Op
	var tag uint64
	if len(msg) >= ioctl.HeaderSize {
		op, tag = ioctl.Op(binary.LittleEndian.Uint16(msg[4:])), binary.LittleEndian.Uint64(msg[8:])
	}
	e := &api.Error{Code: api.EPROTO, Op: op.Name(), Detail: "the daemon does not listen to this session any more", Err: err}
	if errors.Is(err, errNotPeer) || errors.Is(err, errPeerGone) {
		e.Code = api.EPERM
	}
	s.mu.Lock()
	s.by = ByProtocol
	s.mu.Unlock()
	// A client that does not read must not hold the session: what cannot be
	// sent at once is not sent.
	_ = s.conn.SetWriteDeadline(s.srv.clock.Now().Add(100 * time.Millisecond)) //nolint:errcheck // then Write fails
	s.reply(op, tag, nil, e, -1)
	s.end(ByProtocol)
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
		s.srv.log.Warn("message from a stranger", s.who(), slog.Any("error", err))
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
	if !s.hello && h.Op != ioctl.OpHello || s.hello && h.Op == ioctl.OpHello {
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
	}
	return s.start(h, m, buf)
}

// start runs a request once there is a slot for it.
func (s *session) start(h ioctl.Header, m ioctl.Message, buf *buffer) (kept bool, err error) {
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return false, nil
	}
	r := &request{s: s, op: h.Op, tag: h.Tag, fd: -1, began: s.srv.clock.Now()}
	if inline(m) {
		r.buf, kept = buf, true
	}
	cancel, err := s.register(r, h.Deadline)
	if err != nil {
		<-s.slots
		r.buf = nil
		return false, err
	}
	s.requests.Go(func() {
		r.serve(m)
		cancel()
		<-s.slots
	})
	return kept, nil
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
