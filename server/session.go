package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
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
	flow  *flow // of the process that connected
	peer  *peer // set before the first request
	table *uhandle.Table[resource]
	slots chan struct{} // a token per request in flight

	// ctx ends with the session.
	ctx    context.Context
	cancel context.CancelFunc

	requests sync.WaitGroup
	vigil    *uhandle.Vigil // nil until the peer is known; the reader's own
	rings    sessionRings
	gone     atomic.Bool  // as ended; for loops, which look at it often
	lasting  atomic.Int32 // commits of rings that the metadata log has; each is one of requests

	client Client // in what it reserves; set with peer
	io     budget // of IOBytes
	tasks  budget // of Requests
	urgent budget // of Urgent

	logs   budget       // of HandleBytes, for what is open on logs
	memory atomic.Int64 // bytes of messages, arenas and handles

	handleRoom atomic.Int64 // handles that memory is reserved for

	connected time.Time
	greeted   atomic.Bool   // hello was said; peer is set before
	features  atomic.Uint64 // of the protocol, known to both
	taken     atomic.Uint64 // requests
	aborted   atomic.Uint64 // uncommitted objects, when it had ended
	lists     atomic.Int32  // that it reads

	links         atomic.Int32   // handles of pools that borrow credits
	creditsQueued atomic.Int32   // credit messages that its socket had no room for
	creditsLost   atomic.Uint32  // credits that it had when it ended
	failing       atomic.Bool    // one of drains ends it
	drains        sync.WaitGroup // who sends such messages, and ends it for them

	// letting is held while some of what its handles stood for is released, after it
	// has ended.
	letting sync.Mutex
	wanted  atomic.Int32 // who want it for references of their own choice
	// +checklocks:letting
	slow []resource // taken meanwhile: their end may have to wait

	mu sync.Mutex
	// +checklocks:mu
	tags map[uint64]context.CancelFunc // requests in flight
	// +checklocks:mu
	arenas []*arena // by number less one; nil while one is being made
	// +checklocks:mu
	freeArenas []uint16 // numbers to be given again: those arenas could not be made
	// +checklocks:mu
	arenaBytes int64
	// +checklocks:mu
	pools map[*activePool]struct{} // ever opened
	// +checklocks:mu
	ended bool
	// +checklocks:mu
	deaf bool // the reader has ended: no request begins any more
	// +checklocks:mu
	by ioctl.Source // what ended it, or 0
	// +checklocks:mu
	endedAt time.Time
	// +checklocks:mu
	held int // handles, when it ended
	// +checklocks:mu
	freeAt int64 // when they had, in ns of CLOCK_MONOTONIC
	// +checklocks:mu
	draining bool
	// +checklocks:mu
	buried map[uhandle.Handle]struct{} // handles that were fenced and not given up
}

func newSession(srv *Server, id uint64, conn *net.UnixConn) *session {
	s := &session{
		srv: srv, id: id, conn: conn, connected: srv.clock.Now(),
		table: uhandle.New[resource](srv.limits.Handles, firstGeneration()),
		slots: make(chan struct{}, srv.limits.Requests),
		tags:  make(map[uint64]context.CancelFunc),
		pools: make(map[*activePool]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(srv.hard)
	// Also when its reader waits for a client that does not read.
	context.AfterFunc(s.ctx, func() { s.end(ioctl.SourceShutdown) })
	return s
}

// firstGeneration returns a number that another session's handles hardly have.
func firstGeneration() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.NativeEndian.Uint32(b[:])
}

// newInstance returns a number that no other run of the daemon has.
func newInstance() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.NativeEndian.Uint64(b[:]) | 1
}

// refusalTime is how long a client that is turned away has to say hello.
const refusalTime = 100 * time.Millisecond

// refuse turns a client away that there is no session for.
func refuse(conn *net.UnixConn, err error) {
	m := ioctl.NewError(err)
	m.Refusal = nil // what it knows of it has not said yet
	b, e := ioctl.Append(nil, ioctl.Header{Op: ioctl.OpHello, Flags: ioctl.FlagReply | ioctl.FlagError}, m)
	if e == nil {
		// An empty socket has room for it: this does not wait.
		_, _ = conn.Write(b) //nolint:errcheck // who does not hear it sees the end
		// A hello that nobody has read would take the answer away with it.
		_ = conn.SetReadDeadline(time.Now().Add(refusalTime)) //nolint:errcheck,forbidigo // then Read fails; a socket's deadline is of the machine's clock
		_, _ = conn.Read(make([]byte, 1))                     //nolint:errcheck // whatever it is
	}
	_ = conn.Close() // nothing to lose
}

// unidentified is what a client is told that has no session because the daemon
// cannot tell whose it would be.
func unidentified(err error) error {
	e := &api.Error{Code: api.EPERM, Op: ioctl.OpHello.Name(), Detail: "the daemon cannot tell who connects", Err: err}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
		e.Code, e.Detail = api.ENOMEM, "the daemon has no descriptors or memory for another session"
	}
	return e
}

// run serves the session to its end, and releases what it held.
func (s *session) run() {
	defer s.cancel()
	defer s.srv.fair.leave(s.flow)
	if !s.enter() {
		_ = s.conn.Close() // nothing to lose
		return
	}
	p, err := identify(s.conn, s.srv.opt.noPeerPidfd)
	if err != nil {
		s.srv.complaints.Warn("client not identified", slog.Any("error", err))
		refuse(s.conn, unidentified(err))
		return
	}
	s.peer = p
	s.client = Client{Session: s.id, PID: p.pid, UID: p.uid, end: s.cancel}
	if err := s.admitSession(); err != nil {
		s.srv.complaints.Warn("session refused", s.who(), slog.Any("error", err))
		refuse(s.conn, err)
		p.close()
		return
	}
	defer s.dismiss()
	s.watch()
	s.silence(s.srv.clock.Now().Add(s.srv.limits.HelloTimeout))
	s.read()
	s.finish()
}

// watch ends the session when its process dies, as soon as it is known which
// that is. Only the reader calls it.
func (s *session) watch() {
	if s.vigil != nil || s.peer.proc == nil {
		return
	}
	v, err := uhandle.Watch(s.peer.proc, s.srv.sources, func(by string) { s.end(noticed(by)) })
	if err != nil {
		s.srv.complaints.Warn("a client is watched less than it should be", s.who(), slog.Any("error", err))
	}
	s.vigil = v
}

// noticed returns what the protocol calls a source of news of death.
func noticed(by string) ioctl.Source {
	if by == ioctl.SourceBPF.String() {
		return ioctl.SourceBPF
	}
	return ioctl.SourcePidfd
}

// end ends the session, for the first reason given: nothing more is taken and
// what is in flight is cancelled, unless it must run to its end. The reader
// does the rest.
func (s *session) end(by ioctl.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if s.by == 0 {
		s.by = by
	}
	s.ended, s.endedAt = true, s.srv.clock.Now()
	s.gone.Store(true)
	s.held = s.srv.dying.add(s)
	s.freeAt = uhandle.Monotonic()
	s.cancel()
	_ = s.conn.Close() // nothing to lose
}

// untilEnd returns a context that ends with the given one and with the session: for
// what may wait of a request that else runs to its end. letGo is to be called.
func (s *session) untilEnd(ctx context.Context) (_ context.Context, letGo func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
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
	if err := s.srv.reserver.Greet(&s.client); err != nil {
		s.reply(h.Op, h.Tag, nil, refused("the client may not come in now", err), -1)
		return
	}
	l := &s.srv.limits
	s.features.Store(m.Features & ioctl.Features)
	s.greeted.Store(true)
	s.silence(time.Time{})
	s.srv.log.Debug("session opened", s.who())
	s.reply(h.Op, h.Tag, &ioctl.HelloReply{
		Version: ioctl.Version, Features: s.features.Load(), MaxRequests: uint32(l.Requests), MaxHandles: uint32(l.Handles),
		MaxArenas: uint32(l.Arenas), ArenaDefault: uint64(l.ArenaDefault), ArenaTotal: uint64(l.ArenaSession),
		Instance: s.srv.instance, Session: s.id,
	}, nil, -1)
}

// finish waits for a draining session's requests, ends it, and reaps.
func (s *session) finish() {
	s.mu.Lock()
	draining := s.draining && !s.ended
	s.deaf = true
	s.mu.Unlock()
	if draining {
		s.waitIdle()
		s.drainRings()
	}
	s.end(ioctl.SourceShutdown)
	s.dropRings()
	told := s.reap()
	s.requests.Wait()
	s.drains.Wait() // no handle of a pool is left, and so no link
	s.leaveLoop()
	s.dropArenas()
	s.giveBack()
	<-told
	if s.vigil != nil {
		s.vigil.Stop()
	}
	s.peer.close()
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
