package server

import (
	"context"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// sessionRings is what a session knows of its rings; the loop that serves them
// knows the rest.
type sessionRings struct {
	mu sync.Mutex
	// +checklocks:mu
	set *ringSet // nil: it has had none
	// +checklocks:mu
	list [ioctl.MaxRings]*ioRing // by number less one
	// +checklocks:mu
	ended bool // no ring is made any more
}

// ringAsk makes a ring of a piece of an arena, and has a loop serve it.
func ringAsk(r *request, m *ioctl.RingAsk) (ioctl.Message, error) {
	size := ring.Size(int(m.Entries))
	switch {
	case m.Version != ring.Version:
		return nil, api.Errorf(api.ENOTSUP, "", "rings of version %d: the daemon has version %d", m.Version, ring.Version)
	case m.Entries > ring.MaxEntries || size == 0:
		return nil, api.Errorf(api.EINVAL, "", "a ring of %d entries: want a power of two from %d to %d",
			m.Entries, ring.MinEntries, ring.MaxEntries)
	}
	a := r.s.arena(m.Arena)
	if a == nil {
		return nil, api.Errorf(api.EINVAL, "", "no arena %d", m.Arena)
	}
	mem, err := a.use(ioctl.Window{Arena: m.Arena, Offset: m.Offset, Length: uint32(size)})
	if err != nil {
		return nil, err
	}
	populate(mem)
	end, err := ring.NewDaemon(mem, int(m.Entries))
	if err != nil {
		panic("server: a window that is no ring: " + err.Error())
	}
	number, err := r.s.addRing(&ioRing{end: end, arena: a, closed: make(chan struct{})})
	if err != nil {
		a.unuse()
		return nil, err
	}
	return &ioctl.RingReply{Ring: number}, nil
}

// addRing gives a ring a number and a loop.
func (s *session) addRing(r *ioRing) (uint16, error) {
	rs := &s.rings
	rs.mu.Lock()
	defer rs.mu.Unlock()
	free := -1
	for i := len(rs.list) - 1; i >= 0; i-- {
		if rs.list[i] == nil {
			free = i
		}
	}
	switch {
	case rs.ended:
		return 0, api.Errorf(api.ECANCELED, "", "the session has ended")
	case free < 0:
		return 0, api.Errorf(api.EAGAIN, "", "the session has %d rings, as many as it may", len(rs.list))
	}
	if rs.set == nil {
		l, err := s.srv.loops.assign()
		if err != nil {
			return 0, &api.Error{Code: api.ENOTSUP, Detail: "the daemon serves no rings", Err: err}
		}
		rs.set = &ringSet{s: s, loop: l, most: s.srv.limits.ArenaSession, lanes: make(map[uint64]*handleLane)}
	}
	l := rs.set.loop
	if !l.admits() {
		return 0, api.Errorf(api.EAGAIN, "", "the daemon has as many rings as it can wait for")
	}
	r.set, r.number = rs.set, uint16(free+1)
	s.requests.Add(1) // its loop's; the request that asks is another one
	l.count.rings.Add(1)
	if !l.do(func() { l.addRing(r) }) {
		l.count.rings.Add(-1)
		s.requests.Done()
		return 0, api.Errorf(api.ECANCELED, "", "the daemon is stopping")
	}
	rs.list[free] = r
	return r.number, nil
}

// ringClose ends a ring.
func ringClose(r *request, m *ioctl.RingClose) (ioctl.Message, error) {
	rs := &r.s.rings
	rs.mu.Lock()
	var g *ioRing
	if m.Ring > 0 && int(m.Ring) <= len(rs.list) {
		g = rs.list[m.Ring-1]
	}
	rs.mu.Unlock()
	if g == nil {
		return nil, api.Errorf(api.EINVAL, "", "no ring %d", m.Ring)
	}
	l := g.set.loop
	l.do(func() { l.closeRing(g) }) // the loop goes on as long as it has a ring
	select {
	case <-g.closed:
	case <-r.ctx.Done():
		return nil, api.ContextError("", context.Cause(r.ctx))
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.list[m.Ring-1] == g {
		rs.list[m.Ring-1] = nil
	}
	return &ioctl.Empty{}, nil
}

// all returns the session's rings and lets none be made any more.
func (rs *sessionRings) all() (set *ringSet, list []*ioRing) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.ended = true
	for _, r := range rs.list {
		if r != nil {
			list = append(list, r)
		}
	}
	return rs.set, list
}

// drainRings takes no more of the session's rings and waits until all that was
// taken is answered, or the session has ended.
func (s *session) drainRings() {
	set, list := s.rings.all()
	if set == nil {
		return
	}
	l := set.loop
	for _, r := range list {
		l.do(func() { l.closeRing(r) })
	}
	for _, r := range list {
		select {
		case <-r.closed:
		case <-s.ctx.Done():
			return
		}
	}
}

// dropRings has the session's rings end, which is over: what was taken and not
// started is dropped. They count as requests until what was started has ended.
func (s *session) dropRings() {
	set, list := s.rings.all()
	if set == nil {
		return
	}
	l := set.loop
	l.do(func() {
		set.drop()
		for _, r := range list {
			l.closeRing(r)
		}
	})
}

// leaveLoop says that the session needs its loop no more.
func (s *session) leaveLoop() {
	if set, _ := s.rings.all(); set != nil {
		set.loop.count.sessions.Add(-1)
	}
}
