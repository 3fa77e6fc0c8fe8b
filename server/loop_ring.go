package server

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/ioctl/ring"
)

// How much of a session's descriptors a loop takes before it looks at the next
// session's.
const (
	takeOps   = 32
	takeBytes = takeOps * 2 * opCost
	// opCost is what a descriptor counts beside its bytes.
	opCost = 4096
	// setOps is how many descriptors of a session may be taken and not answered.
	setOps = 4096
)

// ringSet is a session's rings, all on one loop, whose goroutine's it is.
type ringSet struct {
	s    *session
	loop *ioLoop

	rings  []*ioRing
	arenas []*ringArena // by number; nil: not used yet
	lanes  map[uint64]*handleLane
	shares []*driveShare // by drive
	turns  laneTurns
	errors errorQueue

	begun   int64  // bytes of operations that are begun and have not ended
	most    int64  // of begun
	credit  int64  // bytes that may be taken before it is others' turn
	open    int    // descriptors taken and not answered
	over    bool   // nothing is taken any more
	appends opList // and commits
	free    *ringOp
	asks    request // for those who ask whether the session may
}

// ioRing is the daemon's end of a ring.
type ioRing struct {
	set    *ringSet
	number uint16
	end    *ring.Daemon
	arena  *arena // in use

	hot    bool // it is in the loop's list
	told   bool // so
	isMute bool // so
	dozed  bool // its client rings the bell if it has something
	armed  bool // somebody waits for the bell
	rung   bool // the bell has rung since it was looked at

	empty     int // bells in a row that rang for nothing
	muteUntil time.Time
	scolded   bool

	closing bool
	closed  chan struct{} // closed when the loop looks at it no more
	over    atomic.Bool   // as closing, for the goroutine that waits for the bell

	bell func(error) // the end of a wait for the bell
	word *uint32     // the bell that is or was waited for last
	ear  chan *uint32
}

// addRing begins to look at a ring.
func (l *ioLoop) addRing(r *ioRing) {
	set := r.set
	if len(set.rings) == 0 {
		l.sets = append(l.sets, set)
	}
	set.rings = append(set.rings, r)
	r.bell = func(error) {
		r.armed, r.rung = false, true
		l.heat(r)
	}
	l.heat(r)
}

// heat has a ring looked at.
func (l *ioLoop) heat(r *ioRing) {
	if !r.hot && !r.closing {
		r.hot = true
		l.hot = append(l.hot, r)
	}
}

// intake takes descriptors of all rings that are to be looked at, a share of each
// session's, and says whether it got any or would have.
func (l *ioLoop) intake() bool {
	if len(l.hot) == 0 {
		return false
	}
	l.turn++
	busy := false
	for i := range len(l.hot) {
		set := l.hot[(i+l.turn)%len(l.hot)].set
		set.credit = min(set.credit+takeBytes/int64(len(set.rings)), takeBytes)
	}
	if len(l.sets) == 1 {
		l.sets[0].credit = takeBytes // there is nobody else
	}
	for i := range len(l.hot) {
		r := l.hot[(i+l.turn)%len(l.hot)]
		if l.take(r) {
			busy = true
		}
	}
	return busy
}

// take takes some of a ring's descriptors and begins them. It says whether it
// took any, or could the next time.
func (l *ioLoop) take(r *ioRing) bool {
	set := r.set
	if r.closing || set.stopped() {
		return false
	}
	if r.dozed {
		r.dozed = false
		r.end.Rise()
	}
	n, err := r.takeable()
	if err != nil {
		l.breach(set, err)
		return false
	}
	rung := r.rung
	r.rung = false
	if n == 0 {
		if rung {
			l.rangForNothing(r)
		}
		return false
	}
	r.empty = 0
	taken := false
	for range min(n, takeOps) {
		if set.full() || set.stopped() {
			break
		}
		taken = true // or it may the next time
		if set.credit <= 0 {
			break
		}
		if !l.takeOne(r) {
			return true
		}
	}
	return taken
}

// takeOne takes a descriptor and begins it. It returns false if that broke the
// protocol.
func (l *ioLoop) takeOne(r *ioRing) bool {
	x := r.newOp()
	err := r.end.Take(&x.d)
	x.ring.set.open++
	if err == nil {
		err = x.check()
	}
	if err != nil {
		x.unanswered()
		l.breach(r.set, err)
		return false
	}
	// More is nothing that the loop does itself, or nonsense.
	r.set.credit -= opCost + min(int64(x.d.Length), loopMaxData)
	r.set.s.taken.Add(1)
	x.began = l.clock()
	x.begin()
	return true
}

// takeable returns how many descriptors may be taken.
func (r *ioRing) takeable() (int, error) {
	ready, err := r.end.Ready()
	if ready == 0 || err != nil {
		return 0, err
	}
	room, err := r.end.Room()
	return min(ready, room), err
}

// stopped says whether nothing is taken any more.
func (set *ringSet) stopped() bool { return set.over || set.s.gone.Load() }

// full says whether so much is under way that the rest has to wait. A client that
// uses its arenas as it should does not meet the bound of bytes.
func (set *ringSet) full() bool { return set.begun >= set.most || set.open >= setOps }

// ease counts out what has ended. If the set was full, its rings are to be looked at
// again.
func (set *ringSet) ease(bytes int64, open int) {
	wasFull := set.full()
	set.begun -= bytes
	set.open -= open
	if wasFull {
		for _, r := range set.rings {
			set.loop.heat(r)
		}
	}
}

// breach ends a session for what its ring holds.
func (l *ioLoop) breach(set *ringSet, err error) {
	if set.over {
		return
	}
	set.over = true
	s := set.s
	// The rings count as a request: nobody waits for the last one yet.
	s.requests.Go(func() { s.breach(nil, fmt.Errorf("ring: %w", err)) })
}

// tell has a ring's client woken, if it sleeps, when the loop has done what it is
// at.
func (l *ioLoop) tell(r *ioRing) {
	if !r.told {
		r.told = true
		l.told = append(l.told, r)
	}
}

func (l *ioLoop) tellAll() {
	for i, r := range l.told {
		r.told = false
		r.end.Notify()
		l.told[i] = nil
	}
	l.told = l.told[:0]
}

// closeRing takes no more of a ring, and ends it when all that was taken is
// answered.
func (l *ioLoop) closeRing(r *ioRing) {
	if r.closing {
		return
	}
	r.closing = true
	r.over.Store(true)
	l.ending = append(l.ending, r)
}

// endRings ends rings that are closing, of which nothing is open any more.
func (l *ioLoop) endRings() {
	kept := l.ending[:0]
	for _, r := range l.ending {
		if r.armed {
			l.endWait(r)
		}
		if r.armed || r.end.Open() > 0 || r.told {
			kept = append(kept, r)
			continue
		}
		l.endRing(r)
	}
	clear(l.ending[len(kept):])
	l.ending = kept
}

func (l *ioLoop) endRing(r *ioRing) {
	set := r.set
	set.rings = without(set.rings, r)
	l.hot = without(l.hot, r)
	l.muted = without(l.muted, r)
	if r.ear != nil {
		close(r.ear)
	}
	r.arena.unuse()
	l.count.rings.Add(-1)
	if len(set.rings) == 0 {
		l.endSet(set)
	}
	close(r.closed)
	set.s.requests.Done() // its part of the session
}

// endSet lets go of what a session's rings had in common. More rings may come.
func (l *ioLoop) endSet(set *ringSet) {
	for i, a := range set.arenas {
		if a != nil {
			set.arenas[i] = nil
			l.dropArena(a)
		}
	}
	for _, sh := range set.shares {
		sh.leave()
	}
	set.shares = nil
	l.sets = without(l.sets, set)
}

// without removes an element from a list, if it is there.
func without[T comparable](list []T, v T) []T {
	for i, w := range list {
		if w == v {
			copy(list[i:], list[i+1:])
			var none T
			list[len(list)-1] = none
			return list[:len(list)-1]
		}
	}
	return list
}
