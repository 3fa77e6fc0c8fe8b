package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
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
	objects map[layout.ObjectID]*fakeObject
	roots   map[string]layout.ObjectID
	lastID  uint64
	created time.Time
	events  []ioctl.Event
	done    map[ioctl.Op]int // requests done

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
			s := &fakeSession{f: f, conn: c, id: f.sessions, handles: make(map[ioctl.Handle]*fakeObject)}
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
		f.mu.Unlock()
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
	reply, err := s.do(h.Op, m, &fd)
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

func (s *fakeSession) give(o *fakeObject) ioctl.Handle {
	s.last++
	s.handles[s.last] = o
	return s.last
}

// object returns the object of a handle.
func (s *fakeSession) object(h ioctl.Handle) (*fakeObject, error) {
	o, ok := s.handles[h]
	if !ok || o == nil {
		return nil, api.Errorf(api.EBADF, "", "no handle %d", h)
	}
	return o, nil
}

func (s *fakeSession) do(op ioctl.Op, m ioctl.Message, fd *int) (ioctl.Message, error) {
	f := s.f
	switch m := m.(type) {
	case *ioctl.Hello:
		r := roomy
		r.Version, r.Instance, r.Session = ioctl.Version, f.instance, s.id
		return &r, nil
	case *ioctl.Empty:
		return &ioctl.VersionReply{Daemon: "fake"}, nil
	case *ioctl.ClientList:
		reply := &ioctl.ClientsReply{}
		list := slices.Clone(f.lingers)
		for c := range f.conns {
			list = append(list, c.id)
		}
		slices.Sort(list)
		for _, id := range list {
			if id > m.After {
				reply.Clients = append(reply.Clients, ioctl.ClientInfo{Session: id})
			}
		}
		return reply, nil
	case *ioctl.EventNext:
		reply := &ioctl.EventsReply{Last: m.After}
		for _, e := range f.events {
			if e.Seq > m.After {
				reply.Events = append(reply.Events, e)
				reply.Last = e.Seq
			}
		}
		return reply, nil
	case *ioctl.ArenaAsk:
		return s.arena(m, fd)
	case *ioctl.PoolShow:
		return &ioctl.PoolReply{Info: api.PoolInfo{Name: "data", UUID: f.uuid}}, nil
	case *ioctl.PoolName:
		return s.poolName(op, m)
	case *ioctl.ListOpen:
		return &ioctl.Opened{Handle: s.give(nil)}, nil
	case *ioctl.RootsSet:
		roots, err := ioctl.ParseRoots(m.Roots.Inline)
		f.setRoots(roots)
		return &ioctl.Empty{}, err
	case *ioctl.RootsList:
		reply := &ioctl.RootsReply{}
		for name, id := range f.roots {
			reply.Roots = append(reply.Roots, api.Root{Name: name, ID: id})
		}
		return reply, nil
	case *ioctl.CommitMany:
		return s.commitMany(m)
	case *ioctl.Alloc:
		return s.alloc(op, m)
	case *ioctl.Find:
		return s.find(op, m)
	case *ioctl.Target:
		return s.target(op, m)
	case *ioctl.MblockWrite, *ioctl.MblockRead, *ioctl.AppendRecord, *ioctl.ReadNext:
		return s.data(op, m)
	}
	return op.NewReply(), nil
}

func (f *fake) setRoots(roots []api.Root) {
	for _, r := range roots {
		f.roots[r.Name] = r.ID
		if r.ID == 0 {
			delete(f.roots, r.Name)
		}
	}
}

func (s *fakeSession) arena(m *ioctl.ArenaAsk, fd *int) (ioctl.Message, error) {
	n, err := unix.MemfdCreate("fake", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	*fd = n
	if err := unix.Ftruncate(n, int64(m.Size)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(n, 0, int(m.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	s.arenas = append(s.arenas, mem)
	return &ioctl.ArenaReply{Arena: uint16(len(s.arenas)), Size: m.Size}, nil
}

func (s *fakeSession) poolName(op ioctl.Op, m *ioctl.PoolName) (ioctl.Message, error) {
	switch op {
	case ioctl.OpPoolOpen:
		if m.Name != "data" {
			return nil, api.Errorf(api.ENOENT, "", "no pool")
		}
		return &ioctl.Opened{Handle: s.give(nil)}, nil
	case ioctl.OpPoolList:
		return &ioctl.PoolListReply{Names: []string{"data"}}, nil
	}
	return &ioctl.Empty{}, nil
}

func (s *fakeSession) commitMany(m *ioctl.CommitMany) (ioctl.Message, error) {
	for _, h := range m.Objects {
		o, err := s.object(h)
		if err != nil {
			return nil, err
		}
		o.committed = true
	}
	roots, err := ioctl.ParseRoots(m.Roots.Inline)
	s.f.setRoots(roots)
	return &ioctl.Empty{}, err
}

func (s *fakeSession) alloc(op ioctl.Op, m *ioctl.Alloc) (ioctl.Message, error) {
	f := s.f
	f.lastID++
	kind := layout.KindMblock
	if op != ioctl.OpMblockAlloc {
		kind = layout.KindMlog
	}
	o := &fakeObject{id: layout.NewObjectID(kind, f.lastID), created: f.created, session: s}
	if m.ID != 0 {
		o.id = m.ID
	}
	f.objects[o.id] = o
	if op == ioctl.OpMDCCreate {
		o.committed = true
		return &ioctl.MDCCreated{ID: o.id}, nil
	}
	return &ioctl.Opened{Handle: s.give(o), ID: o.id, Created: o.created}, nil
}

func (s *fakeSession) find(op ioctl.Op, m *ioctl.Find) (ioctl.Message, error) {
	o := s.f.objects[m.ID]
	if o == nil || !o.committed && o.session != s {
		return nil, &api.Error{Code: api.ENOENT, Object: m.ID}
	}
	if op == ioctl.OpMDCDelete {
		delete(s.f.objects, m.ID)
		return &ioctl.Empty{}, nil
	}
	return &ioctl.Opened{Handle: s.give(o), ID: o.id, Created: o.created}, nil
}

func (s *fakeSession) target(op ioctl.Op, m *ioctl.Target) (ioctl.Message, error) {
	if op == ioctl.OpClose {
		if _, ok := s.handles[m.Handle]; !ok {
			return nil, api.Errorf(api.EBADF, "", "no handle %d", m.Handle)
		}
		delete(s.handles, m.Handle)
		return &ioctl.Empty{}, nil
	}
	if op == ioctl.OpListNext {
		reply := &ioctl.ListReply{}
		for _, o := range s.f.objects {
			reply.Objects = append(reply.Objects, o.info())
		}
		return reply, nil
	}
	o, err := s.object(m.Handle)
	if err != nil {
		return nil, err
	}
	switch op {
	case ioctl.OpObjectInfo:
		return &ioctl.ObjectReply{Info: o.info()}, nil
	case ioctl.OpObjectGet:
		return &ioctl.Opened{Handle: s.give(o), ID: o.id, Created: o.created}, nil
	case ioctl.OpObjectCommit:
		o.committed = true
	case ioctl.OpObjectAbort, ioctl.OpObjectDelete:
		if o.committed != (op == ioctl.OpObjectDelete) {
			return nil, api.Errorf(api.ESTATE, "", "committed: %v", o.committed)
		}
		delete(s.f.objects, o.id)
		delete(s.handles, m.Handle)
	case ioctl.OpMlogOpenAppend:
		return &ioctl.AppenderOpened{Appender: s.give(o), Records: uint64(len(o.records))}, nil
	case ioctl.OpMlogOpenRead, ioctl.OpMDCOpenRead:
		return &ioctl.Opened{Handle: s.give(o)}, nil
	}
	return op.NewReply(), nil
}

func (o *fakeObject) info() api.ObjectInfo {
	i := api.ObjectInfo{ID: o.id, Kind: o.id.Kind(), State: api.StateUncommitted, Length: int64(len(o.data)), Created: o.created}
	if o.committed {
		i.State = api.StateCommitted
	}
	return i
}

// bytes returns the memory of a window, or nil.
func (s *fakeSession) bytes(w ioctl.Window) []byte {
	if w.Arena == 0 {
		return nil
	}
	return s.arenas[w.Arena-1][w.Offset : w.Offset+w.Length]
}

func (s *fakeSession) data(op ioctl.Op, m ioctl.Message) (ioctl.Message, error) {
	switch m := m.(type) {
	case *ioctl.MblockWrite:
		o, err := s.object(m.Mblock)
		if err != nil {
			return nil, err
		}
		o.data = append(append(o.data, m.Data.Inline...), s.bytes(m.Data.Window)...)
		return &ioctl.MblockWritten{N: m.Data.Length}, nil
	case *ioctl.MblockRead:
		o, err := s.object(m.Mblock)
		if err != nil {
			return nil, err
		}
		p := o.data[min(int(m.Offset), len(o.data)):]
		eof := int(m.Into.Length) > len(p)
		p = p[:min(len(p), int(m.Into.Length))]
		if into := s.bytes(m.Into); into != nil {
			copy(into, p)
			return &ioctl.MblockReadReply{N: uint32(len(p)), EOF: eof}, nil
		}
		return &ioctl.MblockReadReply{N: uint32(len(p)), EOF: eof, Data: append([]byte{}, p...)}, nil
	case *ioctl.AppendRecord:
		o, err := s.object(m.To)
		if err != nil {
			return nil, err
		}
		o.records = append(o.records, append(append([]byte{}, m.Data.Inline...), s.bytes(m.Data.Window)...))
		if op != ioctl.OpAppend {
			return &ioctl.Empty{}, nil
		}
		return &ioctl.Appended{Record: uint64(len(o.records) - 1), Records: uint64(len(o.records))}, nil
	case *ioctl.ReadNext:
		return &ioctl.ReadNextReply{EOF: true}, nil
	}
	return nil, errors.New("no data")
}

// connect dials the daemon. Close is the test's end's.
func (f *fake) connect(o Options) *Conn {
	f.t.Helper()
	o.Socket = f.socket
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
