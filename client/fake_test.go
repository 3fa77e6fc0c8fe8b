package client

import (
	"cmp"
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/layout"
)

// boundary is where a fake daemon breaks a connection.
type boundary int

const (
	never       boundary = iota
	afterAsked           // the request was read, and not done
	afterDone            // the request was done, and not answered
	afterAnswer          // the answer was sent
)

// fake is a daemon in memory that breaks connections where a test wants it.
type fake struct {
	t      *testing.T
	socket string
	wg     sync.WaitGroup

	mu       sync.Mutex
	listener *net.UnixListener
	conns    map[*fakeSession]struct{}
	accepted int
	instance uint64
	sessions uint64
	lingers  []uint64 // sessions that are listed although their connection is gone

	uuid    string
	state   string // of the pool
	objects map[layout.ObjectID]*fakeObject
	roots   map[string]layout.ObjectID
	lastID  uint64
	created time.Time
	events  []ioctl.Event
	done    map[ioctl.Op]int // requests done

	// rings says that the daemon has rings.
	rings bool
	// withhold says whether a ring's request is answered only by release; nil:
	// none is.
	withhold func(d *ring.Descriptor) bool
	// instead answers a ring's request; nil: as it should be.
	instead func(r *fakeRing, d *ring.Descriptor)

	// refuse fails a request of an operation; nil: none.
	refuse func(op ioctl.Op) error
	// noRoom refuses what comes of credits; nil: nothing.
	noRoom error
	// hellos is how many owners of credits have said Hello.
	hellos int
	// lacks is the features of the protocol that the daemon does not know.
	lacks uint64
	// packs is the most messages of owners that came in one.
	packs int
	// lender has the daemon's credits; nil: it has none.
	lender *credit.Owner
	// fault says where the connection breaks at a request of an operation.
	fault func(op ioctl.Op) (at boundary, restart bool)
}

type fakeObject struct {
	id        layout.ObjectID
	created   time.Time
	committed bool
	session   *fakeSession
	data      []byte
	records   [][]byte
}

type fakeSession struct {
	f       *fake
	conn    *net.UnixConn
	id      uint64
	handles map[ioctl.Handle]*fakeObject // nil: a pool's or a list's
	last    ioctl.Handle
	arenas  [][]byte
	rings   []*fakeRing
	debtors map[ioctl.Handle]*fakeDebtor
	ended   bool
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		t: t, socket: filepath.Join(t.TempDir(), "s"), conns: make(map[*fakeSession]struct{}), instance: 1,
		uuid: "one", objects: make(map[layout.ObjectID]*fakeObject), roots: make(map[string]layout.ObjectID),
		created: time.Unix(1700000000, 0), done: make(map[ioctl.Op]int),
	}
	f.start()
	t.Cleanup(func() {
		f.stop()
		f.wg.Wait()
	})
	return f
}

// start lets the daemon listen.
func (f *fake) start() {
	f.t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: f.socket, Net: "unixpacket"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.listener = l
	f.mu.Unlock()
	f.wg.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.accepted++
			f.sessions++
			s := &fakeSession{f: f, conn: c, id: f.sessions, handles: make(map[ioctl.Handle]*fakeObject), debtors: make(map[ioctl.Handle]*fakeDebtor)}
			f.conns[s] = struct{}{}
			f.mu.Unlock()
			f.wg.Go(s.serve)
		}
	})
}

// stop ends the daemon.
func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener.Close()
	f.breakAll(true)
}

// drop breaks all connections; with restart it is another daemon afterwards.
func (f *fake) drop(restart bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.breakAll(restart)
}

func (f *fake) breakAll(restart bool) {
	for s := range f.conns {
		f.end(s)
	}
	if restart {
		f.instance++
	}
}

// end ends a session: its uncommitted objects are gone.
func (f *fake) end(s *fakeSession) {
	s.conn.Close()
	s.ended = true
	delete(f.conns, s)
	for id, o := range f.objects {
		if o.session == s && !o.committed {
			delete(f.objects, id)
		}
	}
}

// serve answers one connection's requests, one after the other.
func (s *fakeSession) serve() {
	f := s.f
	defer func() {
		f.mu.Lock()
		f.end(s)
		rings := s.rings
		f.mu.Unlock()
		s.leaveCredits()
		for _, r := range rings {
			r.stop()
		}
		for _, mem := range s.arenas {
			if err := unix.Munmap(mem); err != nil {
				f.t.Error(err)
			}
		}
	}()
	buf := make([]byte, ioctl.MaxMessage)
	for {
		n, err := s.conn.Read(buf)
		if err != nil || n == 0 {
			return
		}
		h, err := ioctl.ParseHeader(buf[:n])
		if err != nil {
			f.t.Error(err)
			return
		}
		m := h.Op.NewRequest()
		if err := ioctl.Decode(m, buf[ioctl.HeaderSize:n]); err != nil {
			f.t.Error(err)
			return
		}
		if c, ok := m.(*ioctl.CreditMessage); ok {
			s.credit(h, c)
			continue
		}
		if h.Op != ioctl.OpCancel && !s.answer(h, m) {
			return
		}
	}
}

// answer answers a request; false: the connection is broken.
func (s *fakeSession) answer(h ioctl.Header, m ioctl.Message) bool {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	at, restart := never, false
	if f.fault != nil {
		at, restart = f.fault(h.Op)
	}
	breakNow := func() bool {
		if restart {
			f.breakAll(true)
		} else {
			f.end(s)
		}
		return false
	}
	if at == afterAsked {
		return breakNow()
	}
	fd := -1
	var reply ioctl.Message
	var err error
	if f.refuse != nil {
		err = f.refuse(h.Op)
	}
	if err == nil {
		reply, err = s.do(h.Op, m, &fd)
	}
	f.done[h.Op]++
	if at == afterDone {
		closeFD(fd)
		return breakNow()
	}
	h.Flags = ioctl.FlagReply
	if err != nil {
		h.Flags |= ioctl.FlagError
		reply = ioctl.NewError(err)
	}
	b, err := ioctl.Append(nil, h, reply)
	if err != nil {
		f.t.Error(err)
		return false
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err = s.conn.WriteMsgUnix(b, oob, nil)
	closeFD(fd)
	if err != nil {
		return false // the client has gone
	}
	if at == afterAnswer {
		return breakNow()
	}
	return true
}

// connect dials the daemon. Close is the test's end's.
func (f *fake) connect(o Options) *Conn {
	f.t.Helper()
	o.Socket, o.Hello, o.Reconnect = f.socket, inVain, cmp.Or(o.Reconnect, inVain)
	c, err := Dial(context.Background(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return c
}

// broken waits until a connection knows that it is broken.
func (c *Conn) broken(l *link) {
	for !l.over.Load() {
		time.Sleep(time.Millisecond)
	}
}

// breakAt lets the connection break at the next request of an operation.
func (f *fake) breakAt(op ioctl.Op, at boundary, restart bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hit := false
	f.fault = func(o ioctl.Op) (boundary, bool) {
		if o != op || hit {
			return never, false
		}
		hit = true
		return at, restart
	}
}

// heal lets nothing break any more.
func (f *fake) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = nil
}
