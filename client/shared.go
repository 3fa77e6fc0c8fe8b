package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// sharedRing is the ring that all callers of a link's data calls share. Any
// number of them put requests into it. One of those who wait is the leader: it
// takes the answers for all, sleeps when there are none, and when its own is
// there another one leads. There is a slot for each entry of the ring, with a
// page of memory for a small transfer.
type sharedRing struct {
	ringEnd // end: Put under mu; to take and to sleep are the leader's
	mem     *region
	slots   []slot
	spins   spinning // the leader's
	breath  breath   // the same

	over atomic.Bool // dead is set

	mu sync.Mutex
	// +checklocks:mu
	free []*slot
	// +checklocks:mu
	queue []*caller // who wait for a slot, in turn
	// +checklocks:mu
	parked callers // who wait for an answer and do not lead
	// +checklocks:mu
	leader *caller
	// +checklocks:mu
	inside int // slots whose callers may touch the ring's memory
	// +checklocks:mu
	dead error
}

// slot is one request in the ring, or none. Its caller has it from begin to end,
// unless it gives up.
type slot struct {
	number int
	page   []byte // its piece of the ring's region
	window ioctl.Window

	// What follows is guarded by sharedRing.mu, but that the caller reads it
	// when done is set.
	tag    uint64 // of the request under way, else 0
	begun  uint64 // the last request's tag
	op     ioctl.Op
	length uint32
	who    *caller
	hold   *region // kept to the end, or nil
	lent   *Buffer // the same
	late   bool    // the caller does not wait any more
	kept   bool    // nobody waits now; who wants it claims it

	done atomic.Bool
	c    ring.Completion
	buf  *[ioctl.MaxMessage]byte // the error message, if that is the answer
	size int
	err  error // why there will be no answer
}

// caller is a goroutine in a call.
type caller struct {
	wake chan struct{} // one token, for each time it was put where it waits

	// Guarded by sharedRing.mu, but that it reads got and leads itself when it
	// was woken.
	prev, next *caller
	parked     bool
	want       *slot // whose answer it waits for
	got        *slot // that it waited for
	leads      bool
}

var callerPool = sync.Pool{New: func() any { return &caller{wake: make(chan struct{}, 1)} }}

func getCaller() *caller { return callerPool.Get().(*caller) }

func putCaller(w *caller) {
	w.want, w.got = nil, nil
	callerPool.Put(w)
}

// sharedEntries is how many entries a shared ring has if the arenas of a session
// may have so many bytes.
func sharedEntries(total uint64) int {
	n := 128
	for n > ring.MinEntries && uint64(sharedSize(n)) > total/16 {
		n /= 2
	}
	return n
}

func sharedSize(entries int) int { return ring.Size(entries) + entries*page }

// ring returns the ring for data calls, or nil: then the call uses the socket.
// The first call lets it be made.
func (l *link) ring() *sharedRing {
	if r := l.shared.Load(); r != nil {
		return r
	}
	// An arena of its own, so that there must be room for another.
	if l.limits.MaxArenas >= 2 && !l.sharing.Load() && !l.sharing.Swap(true) {
		l.spawn(l.share)
	}
	return nil
}

// share makes the ring. If there is none to be had the link goes on without.
func (l *link) share() {
	ctx, cancel := polite()
	defer cancel()
	entries := sharedEntries(l.limits.ArenaTotal)
	x, err := l.arenas.ask(ctx, int64(sharedSize(entries)))
	if err != nil {
		return
	}
	mem := l.arenas.keep(x)
	end, err := l.askRing(ctx, mem, entries)
	if err != nil {
		mem.give()
		return
	}
	r := newSharedRing(end, mem, entries)
	if r.index, err = l.addRing(r); err != nil {
		mem.drop()
		return
	}
	l.shared.Store(r)
}

func newSharedRing(end ringEnd, mem *region, entries int) *sharedRing {
	r := &sharedRing{ringEnd: end, mem: mem, slots: make([]slot, entries)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spins.init()
	for i := range r.slots {
		s, at := &r.slots[i], ring.Size(entries)+i*page
		s.number = i
		s.page = mem.mem[at : at+page : at+page]
		s.window = mem.window(page)
		s.window.Offset += uint32(at)
		r.free = append(r.free, s)
	}
	return r
}

// request is what a call puts into the ring: a descriptor and where its data
// is. Without hold and lent that is the slot's page, into which data is copied.
type request struct {
	ring.Descriptor
	data []byte
	hold *region // the call's reference is given to the request
	lent *Buffer // the same
	last bool    // the caller waits for its answer next
	soon bool    // it is not to wait for a slot: it can go over the socket
}

// giveUp gives back what a request holds that was not begun.
func (q *request) giveUp() {
	q.hold.release()
	q.lent.done()
}

// begin puts a request into the ring, and wakes the daemon if it sleeps. It
// waits for a slot only if the caller has none: all might wait for each other.
// Without one it returns nil. When it fails the request was not made.
func (r *sharedRing) begin(ctx context.Context, w *caller, q *request, wait bool) (*slot, error) {
	op := ioctl.Op(q.Op)
	if ctx.Err() != nil {
		q.giveUp()
		return nil, expired(ctx, op.Name())
	}
	r.mu.Lock()
	s := r.slot()
	if s == nil && r.dead == nil && wait {
		r.mu.Unlock()
		s = r.waitSlot(ctx, w)
		r.mu.Lock()
	}
	if s != nil && len(q.data) > 0 {
		r.mu.Unlock()
		copy(s.page, q.data)
		r.mu.Lock()
	}
	if s == nil || r.dead != nil {
		dead := r.dead
		if s != nil {
			r.leave(s)
		}
		r.mu.Unlock()
		q.giveUp()
		switch {
		case dead != nil:
			return nil, unsent(op, dead)
		case wait:
			return nil, expired(ctx, op.Name())
		}
		return nil, nil
	}
	r.put(w, s, q)
	r.mu.Unlock()
	r.end.Bell()
	return s, nil
}

// put fills the descriptor. The daemon sees it at once if it looks.
//
// +checklocks:r.mu
func (r *sharedRing) put(w *caller, s *slot, q *request) {
	if q.Arena == 0 && q.Length > 0 {
		q.Arena, q.Window = s.window.Arena, s.window.Offset
	}
	q.Tag = r.tag(s.number)
	s.tag, s.begun = q.Tag, q.Tag
	s.op, s.length, s.who, s.hold, s.lent = ioctl.Op(q.Op), q.Length, w, q.hold, q.lent
	s.done.Store(false)
	if !r.end.Put(&q.Descriptor) {
		panic("client: more requests than entries in a ring")
	}
	if q.last {
		w.want = s
		if r.leader == nil {
			r.leader, w.leads = w, true
		} else {
			r.parked.push(w)
		}
	}
}

// slot takes a free slot if there is one and nobody waits.
//
// +checklocks:r.mu
func (r *sharedRing) slot() *slot {
	n := len(r.free)
	if n == 0 || len(r.queue) > 0 || r.dead != nil {
		return nil
	}
	s := r.free[n-1]
	r.free = r.free[:n-1]
	r.inside++
	return s
}

// waitSlot waits for a slot; nil: the context or the connection has ended.
func (r *sharedRing) waitSlot(ctx context.Context, w *caller) *slot {
	r.mu.Lock()
	if s := r.slot(); s != nil || r.dead != nil {
		r.mu.Unlock()
		return s
	}
	w.got = nil
	r.queue = append(r.queue, w)
	r.mu.Unlock()
	select {
	case <-w.wake:
	case <-ctx.Done():
		if r.unqueue(w) {
			return nil
		}
		<-w.wake // it was served at the same moment
	}
	return w.got
}

// unqueue ends a wait for a slot, and says whether it was not over.
func (r *sharedRing) unqueue(w *caller) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, x := range r.queue {
		if x == w {
			r.queue = append(r.queue[:i], r.queue[i+1:]...)
			return true
		}
	}
	return false
}

// finish gives the caller's slot back, when it has what it wanted of it.
func (r *sharedRing) finish(s *slot) {
	hold, lent, buf := s.hold, s.lent, s.buf
	r.mu.Lock()
	r.leave(s)
	r.mu.Unlock()
	hold.release()
	lent.done()
	if buf != nil {
		putBuffer(buf)
	}
}

// leave ends the caller's use of a slot, which is free.
//
// +checklocks:r.mu
func (r *sharedRing) leave(s *slot) {
	r.inside--
	r.recycle(s)
	r.unmapIdle()
}

// recycle gives a slot to the next who waits for one.
//
// +checklocks:r.mu
func (r *sharedRing) recycle(s *slot) {
	s.who, s.hold, s.lent, s.buf, s.err, s.late, s.kept = nil, nil, nil, nil, nil, false, false
	if len(r.queue) == 0 || r.dead != nil {
		r.free = append(r.free, s)
		return
	}
	w := r.queue[0]
	r.queue = append(r.queue[:0], r.queue[1:]...)
	r.inside++
	w.got = s
	w.wake <- struct{}{}
}

// unmapIdle gives the ring's memory back when the connection is gone and nobody
// is within.
//
// +checklocks:r.mu
func (r *sharedRing) unmapIdle() {
	if r.dead != nil && r.inside == 0 && r.mem != nil {
		r.mem.drop()
		r.mem = nil
	}
}

// answer returns a slot's answer, when it is there.
func (s *slot) answer(ctx context.Context) (ring.Completion, error) {
	switch {
	case s.err != nil:
		return ring.Completion{}, lost(s.op, s.err)
	case s.buf != nil:
		return ring.Completion{}, timeUp(ctx, errorIn(s.op, s.buf, s.size))
	case s.c.N > s.length && !allocates(s.op):
		return ring.Completion{}, api.Errorf(api.EPROTO, s.op.Name(), "the daemon moved %d bytes of %d asked for", s.c.N, s.length)
	}
	return s.c, nil
}

// errorIn returns the error that an error message holds.
func errorIn(op ioctl.Op, buf *[ioctl.MaxMessage]byte, n int) error {
	h, err := ioctl.ParseHeader(buf[:n])
	if err != nil {
		return &api.Error{Code: api.EPROTO, Op: op.Name(), Err: err}
	}
	return decode(h, buf[ioctl.HeaderSize:n], nil)
}

// errNoSlot is returned, and nothing was asked for, when all slots are taken, maybe
// by requests to a drive that hangs, and the request is not to wait for one.
var errNoSlot = errors.New("no slot in the ring")

// one makes one request and waits for its answer. got is called with the answer
// before the slot is given back.
func (r *sharedRing) one(ctx context.Context, q *request, got func(s *slot, c ring.Completion)) error {
	if !r.l.mark.here() {
		q.giveUp()
		return foreign(ioctl.Op(q.Op).Name(), r.l.pid)
	}
	w := getCaller()
	defer putCaller(w)
	q.last = true
	s, err := r.begin(ctx, w, q, !q.soon)
	if err != nil {
		return err
	}
	if s == nil {
		return errNoSlot
	}
	if err := r.await(ctx, w, s); err != nil {
		return err
	}
	defer r.finish(s)
	c, err := s.answer(ctx)
	if err == nil && got != nil {
		got(s, c)
	}
	return err
}
