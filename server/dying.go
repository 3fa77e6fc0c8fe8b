package server

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/layout"
)

// dying has the sessions that have ended and whose references are not all given
// back yet. A session's handles end all at once, however many they are; what they
// stood for is given back one after another, which takes some hundred ns for each.
// Nobody is to meet a reference of the dead meanwhile: who would has them let go of
// that object first.
type dying struct {
	n    atomic.Int32  // sessions, so that it costs nothing while there are none
	left atomic.Uint64 // how many there have been; raised before n falls

	mu sync.Mutex
	// +checklocks:mu
	sessions map[*session]struct{}
}

func (d *dying) init() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions = make(map[*session]struct{})
}

// add ends a session's handles and returns how many there were. The session is
// reaped after that, or has never had any.
func (d *dying) add(s *session) (handles int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	handles = s.table.Close()
	if handles > 0 {
		d.sessions[s] = struct{}{}
		d.n.Add(1)
	}
	return handles
}

// remove is called when all is given back that does not have to wait.
func (d *dying) remove(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, there := d.sessions[s]; there {
		delete(d.sessions, s)
		d.left.Add(1)
		d.n.Add(-1)
	}
}

func (d *dying) all() []*session {
	if d.n.Load() == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.sessions))
}

// letGoOf has the dead give back their references on objects, those apart that
// requests use, and says whether there may have been any.
func (d *dying) letGoOf(ids ...layout.ObjectID) bool {
	all := d.all()
	for _, s := range all {
		s.letGoOf(ids)
	}
	return len(all) > 0
}

// letGo has the dead give back all their references.
func (d *dying) letGo() {
	for _, s := range d.all() {
		s.letGo()
	}
}

// letGoOf gives an ended session's references on objects back.
func (s *session) letGoOf(ids []layout.ObjectID) {
	s.wanted.Add(1)
	defer s.wanted.Add(-1)
	s.letting.Lock()
	defer s.letting.Unlock()
	for _, id := range ids {
		for _, v := range s.table.TakeOf(uint64(id), kindMblock, kindMlog) {
			s.release(v)
		}
	}
}

// letGoAtOnce is how many references are given back in a row: who waits for one
// of them waits some 10 µs.
const letGoAtOnce = 64

// letGo gives an ended session's references back, but for those that requests
// use. Several may be at it at one time. When it returns, all are given back and
// what may have to wait is in slow.
func (s *session) letGo() {
	for n := 1; s.letGoOfSome(); n++ {
		// Who can run goes first: requests, the ends of other sessions, and who waits for
		// the mutex, which this goroutine would else have again before him.
		runtime.Gosched()
		if n%yieldEvery == 0 {
			// Who was woken meanwhile, a client that asks or the request's thread,
			// would wait for this thread's time slice to end, which is milliseconds.
			_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) //nolint:errcheck // it does not fail
		}
	}
}

// yieldEvery is after how many times letGoAtOnce references the processor is
// offered to others: some 80 µs.
const yieldEvery = 4

func (s *session) letGoOfSome() (more bool) {
	s.letting.Lock()
	defer s.letting.Unlock()
	values := s.table.Rest(letGoAtOnce)
	for _, v := range values {
		if mayWait(v) {
			s.slow = append(s.slow, v)
			continue
		}
		s.release(v)
	}
	return len(values) > 0
}

// takeSlow returns what is to be ended and may have to wait.
func (s *session) takeSlow() []resource {
	s.letting.Lock()
	defer s.letting.Unlock()
	slow := s.slow
	s.slow = nil
	return slow
}
