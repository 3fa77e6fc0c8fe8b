package client

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

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
		r.Features = m.Features & ioctl.Features &^ f.lacks
		if f.rings {
			r.MaxArenas, r.ArenaDefault, r.ArenaTotal = 4, 8<<20, 64<<20
		}
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
	case *ioctl.RingAsk:
		return s.ring(m)
	case *ioctl.RingClose:
		return s.closeRing(m)
	case *ioctl.PoolShow:
		return &ioctl.PoolReply{Info: api.PoolInfo{Name: "data", UUID: f.uuid, State: f.state}}, nil
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
	case *ioctl.Accept:
		return s.alloc(ioctl.OpMblockAlloc, &ioctl.Alloc{})
	case *ioctl.MblockPut:
		reply, err := s.alloc(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: m.Pool, Options: m.Options})
		o := s.f.objects[reply.(*ioctl.Opened).ID]
		o.data, o.committed = append(append(o.data, m.Data.Inline...), s.bytes(m.Data.Window)...), true
		return reply, err
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
	total := m.Size
	for _, mem := range s.arenas {
		total += uint64(len(mem))
	}
	if s.f.rings && total > 64<<20 {
		return nil, api.Errorf(api.EAGAIN, "", "%d bytes of arenas", total)
	}
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
	switch op { //nolint:exhaustive // all the rest changes pools, of which there is one
	case ioctl.OpPoolOpen:
		if m.Name != "data" {
			return nil, api.Errorf(api.ENOENT, "", "no pool")
		}
		return &ioctl.Opened{Handle: s.give(nil)}, nil
	case ioctl.OpPoolList:
		return &ioctl.PoolListReply{Names: []string{"data"}}, nil
	default:
		return &ioctl.Empty{}, nil
	}
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
	switch op { //nolint:exhaustive // all the rest has no target, or no reply
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
