package scope

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxTold is how many refusals are told in an interval.
const maxTold = 20

// refusals counts what was refused and says which of it is told.
type refusals struct {
	byKind [NumKinds]atomic.Uint64 // since the start, of all scopes that ever were

	mu sync.Mutex
	// +checklocks:mu
	begun time.Duration // of the interval
	// +checklocks:mu
	told int // in it
	// +checklocks:mu
	more uint64 // not told since the last that was
}

// Refused returns how often a kind was refused since the start, by whatever scope.
func (m *Manager) Refused(k Kind) uint64 {
	if int(k) >= NumKinds {
		return 0
	}
	return m.refusals.byKind[k].Load()
}

// refusal is what a scope did not take.
type refusal struct {
	at          *Scope // nil: nothing was refused
	what        Amount
	used, limit int64  // that counted when it was refused
	whole       int64  // of which the limit is a share
	origin      string // "": that of the scope's limit
}

// tell counts a refusal, tells it if it is its turn, and returns the error. Only a
// scope with limits refuses, but for what no number can count. No lock is held.
func (r *refusal) tell() error {
	s, k := r.at, r.what.Kind
	e := &LimitError{
		Scope: s.name, Kind: k, Used: r.used, Asked: r.what.N, Limit: r.limit, Whole: r.whole,
		Origin: NoOrigin, Setting: s.m.opt.Setting(s.name, k),
	}
	s.m.refusals.byKind[k].Add(1)
	if s.book == nil {
		return e
	}
	e.Origin = r.origin
	if e.Origin == "" {
		e.Origin = s.book.what[k].Load().origin
	}
	s.book.refused[k].Add(1)
	if s.m.opt.Refused == nil {
		return e
	}
	if more, tell := s.m.mayTell(&s.book.logged[k]); tell {
		s.m.opt.Refused(e, more)
	}
	return e
}

// mayTell says whether a refusal is told, of the scope and kind that last was told
// then.
func (m *Manager) mayTell(last *atomic.Int64) (more uint64, tell bool) {
	r, now := &m.refusals, m.opt.Now().Sub(m.started)
	r.mu.Lock()
	defer r.mu.Unlock()
	if since := now - r.begun; since >= m.opt.Interval || since < 0 { // the clock may have been set back
		r.begun, r.told = now, 0
	}
	was := last.Load()
	since := now - time.Duration(was-1)
	if r.told >= maxTold || was != 0 && since >= 0 && since < m.opt.Interval {
		r.more++
		return 0, false
	}
	last.Store(int64(now) + 1) // not 0
	r.told++
	more, r.more = r.more, 0
	return more, true
}
