package client

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// fakeRing is the fake daemon's end of a ring.
type fakeRing struct {
	s    *fakeSession
	d    *ring.Daemon
	quit atomic.Bool
	done chan struct{}

	taken []ring.Descriptor // withheld; guarded by fake.mu
	let   []ring.Descriptor // to be answered now; guarded by fake.mu
	now   ring.Descriptor
}

// ring makes a ring.
func (s *fakeSession) ring(m *ioctl.RingAsk) (ioctl.Message, error) {
	if !s.f.rings {
		return nil, api.Errorf(api.ENOTSUP, "", "no rings")
	}
	if len(s.rings) == ioctl.MaxRings {
		return nil, api.Errorf(api.EAGAIN, "", "%d rings", len(s.rings))
	}
	mem := s.arenas[m.Arena-1][m.Offset:][:ring.Size(int(m.Entries))]
	for _, b := range mem {
		if b != 0 {
			return nil, api.Errorf(api.EINVAL, "", "not zeroed")
		}
	}
	d, err := ring.NewDaemon(mem, int(m.Entries))
	if err != nil {
		return nil, err
	}
	r := &fakeRing{s: s, d: d, done: make(chan struct{})}
	s.rings = append(s.rings, r)
	go r.serve()
	return &ioctl.RingReply{Ring: uint16(len(s.rings))}, nil
}

// closeRing ends a ring. The caller holds fake.mu, which is free meanwhile.
func (s *fakeSession) closeRing(m *ioctl.RingClose) (ioctl.Message, error) {
	r := s.rings[m.Ring-1]
	// The memory is the client's again: another ring may be made in it.
	s.f.mu.Unlock()
	r.stop()
	s.f.mu.Lock()
	return &ioctl.Empty{}, nil
}

// stop ends the ring's goroutine.
func (r *fakeRing) stop() {
	r.quit.Store(true)
	for {
		r.d.EndWait()
		select {
		case <-r.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (r *fakeRing) serve() {
	defer close(r.done)
	for !r.quit.Load() {
		n, err := r.d.Ready()
		room, err2 := r.d.Room()
		if err != nil || err2 != nil {
			r.s.f.t.Error(err, err2)
			return
		}
		for range min(n, room) {
			if err := r.d.Take(&r.now); err != nil {
				r.s.f.t.Error(err)
				return
			}
			if !r.take(&r.now) {
				return
			}
		}
		if !r.release() {
			return
		}
		if n == 0 {
			if w := r.d.Doze(); w != nil {
				if !r.quit.Load() && !r.pending() {
					ring.Listen(w, -1)
				}
				r.d.Rise()
			}
		}
	}
}

func (r *fakeRing) pending() bool {
	r.s.f.mu.Lock()
	defer r.s.f.mu.Unlock()
	return len(r.let) > 0
}

// take answers a descriptor, or withholds the answer.
func (r *fakeRing) take(d *ring.Descriptor) bool {
	f := r.s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.withhold != nil && f.withhold(d) {
		r.taken = append(r.taken, *d)
		return true
	}
	return r.answer(d)
}

// release answers what was let go.
func (r *fakeRing) release() bool {
	f := r.s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range r.let {
		if !r.answer(&r.let[i]) {
			return false
		}
	}
	r.let = nil
	return true
}

// letGo lets withheld requests go: those that f chooses.
func (f *fake) letGo(choose func(d *ring.Descriptor) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.conns {
		for _, r := range s.rings {
			var rest []ring.Descriptor
			for _, d := range r.taken {
				if choose(&d) {
					r.let = append(r.let, d)
				} else {
					rest = append(rest, d)
				}
			}
			r.taken = rest
			r.d.EndWait()
		}
	}
}

// withheld waits until so many requests are withheld.
func (f *fake) withheld(n int) {
	f.t.Helper()
	for until := time.Now().Add(inVain); ; time.Sleep(100 * time.Microsecond) {
		have := 0
		f.mu.Lock()
		for s := range f.conns {
			for _, r := range s.rings {
				have += len(r.taken)
			}
		}
		f.mu.Unlock()
		if have == n {
			return
		}
		if time.Now().After(until) {
			f.t.Fatalf("%d requests are withheld, want %d", have, n)
		}
	}
}

// message returns a descriptor as the message that would ask the same.
func (d *fakeDescriptor) message() ioctl.Message {
	w := ioctl.Window{Arena: d.Arena, Offset: d.Window, Length: d.Length}
	switch op := ioctl.Op(d.Op); op { //nolint:exhaustive // no other may come through a ring
	case ioctl.OpMblockRead:
		return &ioctl.MblockRead{Mblock: ioctl.Handle(d.Handle), Offset: d.Offset, Into: w}
	case ioctl.OpMblockWrite:
		total := uint64(d.Offset)
		if d.Flags&ring.FlagChained != 0 {
			total = 0
		}
		return &ioctl.MblockWrite{Mblock: ioctl.Handle(d.Handle), Total: total, Data: ioctl.Payload{Window: w}}
	case ioctl.OpAppend, ioctl.OpMDCAppend:
		return &ioctl.AppendRecord{To: ioctl.Handle(d.Handle), Sync: d.Flags&ring.FlagSync != 0, Data: ioctl.Payload{Window: w}}
	case ioctl.OpSync, ioctl.OpMDCSync, ioctl.OpObjectCommit, ioctl.OpClose:
		return &ioctl.Target{Handle: ioctl.Handle(d.Handle)}
	case ioctl.OpMblockAlloc:
		return &ioctl.Alloc{Pool: ioctl.Handle(d.Handle), Options: d.options()}
	case ioctl.OpMblockPut:
		return &ioctl.MblockPut{Pool: ioctl.Handle(d.Handle), Options: d.options(), Data: ioctl.Payload{Window: w}}
	default:
		return nil
	}
}

type fakeDescriptor ring.Descriptor

func (d *fakeDescriptor) options() api.AllocOptions {
	return api.AllocOptions{
		Class: api.Class(d.Class), Fallback: d.Flags&ring.FlagFallback != 0, UseSpare: d.Flags&ring.FlagSpare != 0,
		Capacity: d.Offset, Owner: d.Owner, Tag: d.Label,
	}
}

// answer does a descriptor's request and answers it; false: the connection is
// broken. The caller holds fake.mu.
func (r *fakeRing) answer(d *ring.Descriptor) bool {
	f, s, op := r.s.f, r.s, ioctl.Op(d.Op)
	if s.ended {
		return false
	}
	if f.instead != nil {
		f.instead(r, d)
		return true
	}
	at, restart := never, false
	if f.fault != nil {
		at, restart = f.fault(op)
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
	m := (*fakeDescriptor)(d).message()
	if m == nil {
		f.t.Errorf("%v through a ring", op)
		return false
	}
	var reply ioctl.Message
	var err error
	if f.refuse != nil {
		err = f.refuse(op)
	}
	if err == nil {
		reply, err = s.do(op, m, nil)
	}
	f.done[op]++
	if at == afterDone {
		return breakNow()
	}
	if err != nil {
		h := ioctl.Header{Op: op, Flags: ioctl.FlagReply | ioctl.FlagError, Tag: d.Tag}
		b, err := ioctl.Append(nil, h, ioctl.NewError(err))
		if err != nil {
			f.t.Error(err)
			return false
		}
		r.d.Fail()
		if _, err := s.conn.Write(b); err != nil {
			return false
		}
	} else {
		r.d.Complete(completion(d, reply))
		r.d.Notify()
	}
	if at == afterAnswer {
		return breakNow()
	}
	return true
}

func completion(d *ring.Descriptor, reply ioctl.Message) *ring.Completion {
	c := &ring.Completion{Tag: d.Tag, Op: d.Op, N: d.Length}
	switch m := reply.(type) {
	case *ioctl.MblockReadReply:
		c.N = m.N
		if m.EOF {
			c.Flags = ring.FlagEOF
		}
	case *ioctl.Appended:
		c.A, c.B = m.Record, uint64(m.Bytes)
	case *ioctl.Opened:
		c.A, c.B, c.N, c.Flags = uint64(m.Handle), uint64(m.ID), 0, 0
		if !m.Created.IsZero() {
			ms := m.Created.UnixMilli()
			c.N, c.Flags = uint32(ms), uint16(ms>>32)
		}
	}
	return c
}

// ringed makes the connection's link have a ring.
func (c *Conn) ringed(t *testing.T) *sharedRing {
	t.Helper()
	l := c.current.Load()
	for until := time.Now().Add(inVain); ; time.Sleep(100 * time.Microsecond) {
		if r := l.ring(); r != nil {
			return r
		}
		if time.Now().After(until) {
			t.Fatal("no ring")
		}
	}
}
