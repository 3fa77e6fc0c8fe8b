package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/scope"
	"github.com/mpool-go/mpool/uhandle"
)

// Server serves pools to sessions. Safe for concurrent use. It implements
// [api.Manager] for the program it is in.
type Server struct {
	opt        Options
	limits     Limits
	log        *slog.Logger
	complaints *slog.Logger // lines that clients cause
	clock      *sched.Sched // nil: the machine's
	started    time.Time
	reserver   Reserver
	sources    []uhandle.Source // of news of clients\' deaths
	pools      poolTable
	loops      ioLoops
	fair       fair
	dying      dying
	rules      atomic.Pointer[ownerRules]

	grantClock func() time.Time // what grants go by

	// instance is a number of this run: a client that finds another one knows
	// that the daemon was restarted.
	instance uint64

	ops        counters
	events     eventRing
	tally      tally
	reaped     atomic.Uint64
	arenaBytes atomic.Int64 // of all sessions

	// hard ends what must not end with a session; Shutdown cancels it when its
	// patience is over.
	hard     context.Context
	hardStop context.CancelFunc

	// quiet is closed when Shutdown begins: who waits for events waits no more.
	quiet chan struct{}

	wg       sync.WaitGroup // sessions
	chores   sync.WaitGroup // changes of pools
	refusing chan struct{}  // a token per client that is being turned away

	remapping chan struct{} // a token per goroutine in remap

	logging sync.WaitGroup // who logs events, until logStop is closed
	logStop chan struct{}

	mu sync.Mutex
	// +checklocks:mu
	sessions []*session // in the order of their numbers
	// +checklocks:mu
	lastID uint64
	// +checklocks:mu
	listeners map[net.Listener]struct{}
	// +checklocks:mu
	stopping bool
}

// New makes a server. Shutdown must be called in the end.
func New(o Options) (*Server, error) {
	o.Limits = o.Limits.withDefaults()
	if o.CallBack == 0 {
		o.CallBack = DefaultCallBack
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	rules, err := newOwnerRules(o.Owners)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s := &Server{
		opt: o, limits: o.Limits, log: o.Logger,
		listeners: make(map[net.Listener]struct{}),
		refusing:  make(chan struct{}, maxRefusing),
		remapping: make(chan struct{}, maxRemapping),
		sources:   append(slices.Clone(o.Deaths), uhandle.Pidfd{}),
		quiet:     make(chan struct{}), logStop: make(chan struct{}),
	}
	switch {
	case o.Scopes != nil:
		s.reserver = o.Scopes
	case o.Reserver != nil:
		s.reserver = o.Reserver
	default:
		s.reserver = unlimited{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.complaints = newComplaints(s.log.Handler())
	s.started, s.instance = s.clock.Now(), newInstance()
	if s.grantClock = o.now; s.grantClock == nil {
		s.grantClock = s.clock.Now
	}
	s.hard, s.hardStop = context.WithCancel(context.Background())
	s.rules.Store(&rules)
	s.pools.init()
	s.loops.init(s, o.Loops, o.loopTest)
	s.fair.init(s.clock, runtime.GOMAXPROCS(0))
	s.dying.init()
	s.events.init(s.limits.Sessions)
	s.logging.Go(func() { s.logEvents(s.logStop) })
	return s, nil
}

// Serve accepts sessions until Shutdown, and returns nil then. It owns the
// listener from then on. The listener must be of network "unixpacket"; see
// [Listen].
func (s *Server) Serve(l *Listener) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return errors.Join(net.ErrClosed, l.Close())
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	for {
		conn, err := l.AcceptUnix()
		if err == nil {
			s.begin(conn)
			runtime.Gosched() // a flood of connections is not to keep others from running
			continue
		}
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept: %w", err)
		}
		// Most likely no descriptors are left: sessions that end give some back.
		s.log.Error("cannot accept a session", slog.Any("error", err))
		_ = s.clock.Sleep(s.hard, 50*time.Millisecond) //nolint:errcheck // it ends early when the server stops, which Accept says too
	}
}

// begin starts a session, or turns the client away.
func (s *Server) begin(conn *net.UnixConn) {
	s.mu.Lock()
	if s.stopping || len(s.sessions) >= s.sessionsMost() {
		err := api.Errorf(api.EAGAIN, ioctl.OpHello.Name(), "the daemon has %d sessions, as many as it may (scope system, inbound): end some, or change %s",
			len(s.sessions), scopeSetting(scope.SystemName, scope.Inbound))
		if s.stopping {
			err = api.Errorf(api.ECONNRESET, ioctl.OpHello.Name(), "the daemon is stopping")
		}
		s.mu.Unlock()
		s.complaints.Warn("session refused", slog.Any("error", err))
		s.turnAway(conn, err)
		return
	}
	flow := s.fair.join(connector(conn))
	if flow == nil {
		s.mu.Unlock()
		s.turnAway(conn, api.Errorf(api.EAGAIN, ioctl.OpHello.Name(), "the process connects faster than it is let in"))
		return
	}
	s.lastID++
	sess := newSession(s, s.lastID, conn)
	sess.flow = flow
	s.sessions = append(s.sessions, sess)
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		sess.run()
		s.remove(sess)
	}()
}

// sessionsMost returns how many sessions there may be.
func (s *Server) sessionsMost() int {
	if s.opt.Scopes != nil {
		return s.opt.Scopes.sessionsMost()
	}
	return s.limits.Sessions
}

// arenasMost returns how many bytes of arenas there may be.
func (s *Server) arenasMost() int64 {
	if s.opt.Scopes != nil {
		return s.opt.Scopes.arenasMost()
	}
	return s.limits.ArenaTotal
}

// remove forgets a session that has ended.
func (s *Server) remove(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, there := slices.BinarySearchFunc(s.sessions, sess.id, byID); there {
		s.sessions = slices.Delete(s.sessions, i, i+1)
	}
}

func byID(sess *session, id uint64) int { return cmp.Compare(sess.id, id) }

// turnAway refuses a client apart, or, if many are being refused, leaves it
// without an answer.
func (s *Server) turnAway(conn *net.UnixConn, err error) {
	select {
	case s.refusing <- struct{}{}:
	default:
		_ = conn.Close() // nothing to lose
		return
	}
	go func() {
		refuse(conn, err)
		<-s.refusing
	}()
}

// maxRefusing is how many clients are told at one time that there is no
// session for them.
const maxRefusing = 64

// all returns the sessions there are, in the order of their numbers.
func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sessions)
}

// sessionsFrom returns no more than most of the sessions whose numbers are not
// below id, in their order.
func (s *Server) sessionsFrom(id uint64, most int) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.sessions, id, byID)
	return slices.Clone(s.sessions[i:min(i+most, len(s.sessions))])
}

// Shutdown stops the server: it accepts no session and no request, lets those
// in flight end, ends the sessions and closes the pools. When two thirds of the
// time to ctx's deadline are over it cancels what is still in flight, and the
// last sixth is the pools', all at the same time: one whose drive is stalled
// does not keep the others from being closed cleanly. It returns nil if all
// were; else the next activation recovers. Later calls return at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return nil
	}
	s.stopping = true
	close(s.quiet)
	var errs []error
	for l := range s.listeners {
		if err := l.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	s.mu.Unlock()
	for _, sess := range s.all() {
		sess.drain()
	}
	errs = append(errs, s.endSessions(ctx), s.closePools(ctx), s.loops.end(ctx))
	s.hardStop()
	for range cap(s.refusing) {
		s.refusing <- struct{}{} // who is still being turned away will soon be
	}
	close(s.logStop)
	s.logging.Wait()
	return errors.Join(errs...)
}

// endSessions waits for the sessions, which are draining, and for changes of
// pools.
func (s *Server) endSessions(ctx context.Context) error {
	patience, cancel := share(ctx, 2, 3)
	defer cancel()
	last, cancel := share(ctx, 5, 6)
	defer cancel()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		s.chores.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-patience.Done():
	}
	s.log.Warn("requests did not end in time", slog.Int("sessions", len(s.all())))
	s.hardStop()
	select {
	case <-done:
		return nil
	case <-last.Done():
	}
	if n := len(s.all()); n > 0 {
		return fmt.Errorf("%d sessions did not end in time", n)
	}
	return errors.New("a change of a pool did not end in time")
}

// share returns a context that ends at a part of ctx's time.
func share(ctx context.Context, part, of int64) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(int64(time.Until(deadline))/of*part))
}

// stat answers OpStat.
func (s *Server) stat(m *ioctl.StatAsk, a *activePool) *ioctl.StatReply {
	reply := &ioctl.StatReply{Uptime: s.clock.Now().Sub(s.started)}
	if a == nil {
		reply.Ops, reply.NextOp = s.ops.page(m.FirstOp)
		reply.Reaped = s.reaped.Load()
		for _, sess := range s.all() {
			reply.Sessions++
			reply.Handles += uint32(sess.table.Len())
			reply.Huge += uint64(sess.hugeBytes())
		}
		reply.Arenas = uint64(s.arenaBytes.Load())
		return reply
	}
	reply.Ops, reply.NextOp = a.ops.page(m.FirstOp)
	reply.Handles = uint32(a.handles.Load())
	if reply.NextOp != 0 {
		return reply
	}
	drives := a.pool.DriveCounters()
	first := min(int(m.FirstDrive), len(drives))
	last := min(first+ioctl.StatDrivesPerPage, len(drives))
	reply.Drives = drives[first:last]
	if last < len(drives) {
		reply.NextDrive = uint32(last)
	}
	return reply
}
