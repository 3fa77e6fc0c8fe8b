package sched

import "sync"

// Mutex is a mutual exclusion lock with a rank. Init it before use; the zero
// value is a real-world mutex without a rank.
type Mutex struct {
	mu   sync.Mutex
	sim  *sim
	rank Rank

	// The simulator's state: who holds it and who waits.
	owner   *task
	waiters []*task
}

// Init sets the world and the rank. It must be called before the first Lock,
// and once.
func (m *Mutex) Init(s *Sched, rank Rank) {
	m.rank = rank
	if s != nil {
		m.sim = s.sim
	}
}

// Lock takes the mutex. It panics (in simulation and in builds with the tag
// invariants) when the caller holds a mutex of the same or a higher rank.
func (m *Mutex) Lock() {
	if m.sim != nil {
		m.sim.lock(m)
		return
	}
	assertRankBeforeLock(m)
	m.mu.Lock()
}

// Unlock releases the mutex, which the caller must hold.
func (m *Mutex) Unlock() {
	if m.sim != nil {
		m.sim.unlock(m)
		return
	}
	m.mu.Unlock()
	forgetRankAfterUnlock(m)
}
