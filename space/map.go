package space

import (
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/sched"
)

// Run is a run of zones.
type Run struct {
	Start, Count uint32 // zones
}

// end returns the zone after the run's last.
func (r Run) end() uint64 { return uint64(r.Start) + uint64(r.Count) }

func (r Run) String() string { return fmt.Sprintf("zones %d..%d", r.Start, r.end()-1) }

// State is what a zone is used for.
type State uint8

// The states.
const (
	Free        State = iota
	Uncommitted       // of an object that is not committed yet
	Live              // of a committed object
	Draining          // freed, waiting for I/O pins or for discard
	Overhead          // superblocks and metadata logs
)

const states = 5

func (s State) String() string {
	names := [states]string{"free", "uncommitted", "live", "draining", "overhead"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state%d", uint8(s))
}

// Usage counts zones by state. Free excludes what is kept back as Spare:
// Free + Uncommitted + Live + Draining + Spare + Overhead = Total.
type Usage struct {
	Total       uint32
	Free        uint32
	Uncommitted uint32
	Live        uint32
	Draining    uint32
	Spare       uint32
	Overhead    uint32
}

// ErrOverlap is wrapped by the error of an Insert of zones of which one is in
// use already.
var ErrOverlap = errors.New("zones overlap")

// ErrOutside is wrapped by the error of an Insert outside the drive.
var ErrOutside = errors.New("zones are outside the drive")

// ErrShrink is wrapped by the error of a Grow to fewer zones than there are.
var ErrShrink = errors.New("a drive cannot lose zones")

// OverlapError says which zone is in use already.
type OverlapError struct {
	Run  Run
	Zone uint32 // the first zone of Run that is in use
	// State is what the zone is used for, where the map keeps that (in
	// simulations and builds with the tag invariants), else Free.
	State State
}

func (e *OverlapError) Error() string {
	if e.State == Free {
		return fmt.Sprintf("%v overlap: zone %d is in use", e.Run, e.Zone)
	}
	return fmt.Sprintf("%v overlap: zone %d is %v", e.Run, e.Zone, e.State)
}

// Unwrap returns ErrOverlap.
func (e *OverlapError) Unwrap() error { return ErrOverlap }

// NoSpaceError is the error of an Alloc that found no run.
type NoSpaceError struct {
	Free    uint32 // zones that this kind of allocation may take in all
	Longest uint32 // the largest count with which it would have succeeded
}

func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("no space: %d zones are free, at most %d in a row", e.Free, e.Longest)
}

// Map is the zones of one drive. Safe for concurrent use.
type Map struct {
	mu sched.Mutex
	// +checklocks:mu
	free freeRuns
	// +checklocks:mu
	counts [states]uint32 // zones by state; they add up to total
	// +checklocks:mu
	total uint32
	// +checklocks:mu
	sparePercent uint8
	// +checklocks:mu
	zones []State // each zone's state in simulations and debug builds, else nil
	track bool
}

// New makes the map of a drive of the given number of zones, all free.
// sparePercent (0..100) of the zones that are not overhead are kept back from
// ordinary allocations.
func New(s *sched.Sched, zones uint32, sparePercent uint8) *Map {
	m := &Map{track: trackStates || s.Simulated()}
	m.init(zones, sparePercent)
	m.mu.Init(s, sched.RankSpace)
	return m
}

// init fills a map that nobody else has yet.
//
// +checklocksignore
func (m *Map) init(zones uint32, sparePercent uint8) {
	m.setSpareLocked(sparePercent)
	m.growLocked(zones)
}

// +checklocks:m.mu
func (m *Map) growLocked(zones uint32) {
	m.free = m.free.grown(zones)
	if m.track {
		m.zones = append(m.zones, make([]State, zones-m.total)...)
	}
	if more := zones - m.total; more > 0 {
		m.free.add(Run{Start: m.total, Count: more})
		m.counts[Free] += more
		m.total = zones
	}
}

// Grow gives the drive a new number of zones; the new ones are free. ErrShrink
// if there are more already.
func (m *Map) Grow(zones uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if zones < m.total {
		return fmt.Errorf("%w: it has %d zones, not %d", ErrShrink, m.total, zones)
	}
	m.growLocked(zones)
	return nil
}

// Insert marks a run that the metadata says is in use, Live or Overhead, while
// a pool is activated. Errors that wrap ErrOverlap or ErrOutside change nothing.
func (m *Map) Insert(r Run, st State) error {
	if st != Live && st != Overhead {
		panic(fmt.Sprintf("space: insert of %v zones", st))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Count == 0 || r.end() > uint64(m.total) {
		return fmt.Errorf("%w: %d zones from %d on, of %d", ErrOutside, r.Count, r.Start, m.total)
	}
	if m.free.count(r) != r.Count {
		e := &OverlapError{Run: r, Zone: m.free.firstTaken(r)}
		if m.track {
			e.State = m.zones[e.Zone]
		}
		return e
	}
	m.takeLocked(r, st)
	return nil
}

// Alloc hands out the first run of count zones: Free becomes Uncommitted. With
// useSpare it may take what is kept back. *NoSpaceError if there is no such run.
func (m *Map) Alloc(count uint32, useSpare bool) (Run, error) {
	if count == 0 {
		panic("space: allocation of no zones")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	may := m.counts[Free]
	if !useSpare {
		may -= m.spareLocked()
	}
	longest := min(m.free.longest(), may)
	if count > longest {
		return Run{}, &NoSpaceError{Free: may, Longest: longest}
	}
	r := Run{Start: m.free.first(count), Count: count}
	m.takeLocked(r, Uncommitted)
	return r, nil
}

// takeLocked makes a free run something else.
//
// +checklocks:m.mu
func (m *Map) takeLocked(r Run, st State) {
	m.moveLocked(r, Free, st)
	m.free.remove(r)
}

// Commit makes an uncommitted run, or a part of one, live.
func (m *Map) Commit(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveLocked(r, Uncommitted, Live)
}

// Drain takes a run, or a part of one, out of use: from Live, Uncommitted or
// Overhead to Draining. It is not free before Release.
func (m *Map) Drain(r Run, from State) {
	if from == Free || from == Draining {
		panic(fmt.Sprintf("space: drain of %v zones", from))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveLocked(r, from, Draining)
}

// Release makes a draining run free.
func (m *Map) Release(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveLocked(r, Draining, Free)
	m.free.add(r)
}

// Return frees zones of an Alloc to which nothing was written, at once: nobody sees
// them draining. It panics if any is not Uncommitted.
func (m *Map) Return(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moveLocked(r, Uncommitted, Free)
	m.free.add(r)
}

// moveLocked counts a run from one state into another. It panics when the run
// cannot be in that state.
//
// +checklocks:m.mu
func (m *Map) moveLocked(r Run, from, to State) {
	switch {
	case r.Count == 0 || r.end() > uint64(m.total):
		panic(fmt.Sprintf("space: %d zones from %d on go from %v to %v, on a drive of %d", r.Count, r.Start, from, to, m.total))
	case m.counts[from] < r.Count:
		panic(fmt.Sprintf("space: %v go from %v to %v, but only %d zones are that", r, from, to, m.counts[from]))
	}
	wantFree := uint32(0)
	if from == Free {
		wantFree = r.Count
	}
	if n := m.free.count(r); n != wantFree {
		panic(fmt.Sprintf("space: %v go from %v to %v, but %d of them are free", r, from, to, n))
	}
	if m.track {
		for i := uint64(r.Start); i < r.end(); i++ {
			if m.zones[i] != from {
				panic(fmt.Sprintf("space: %v go from %v to %v, but zone %d is %v", r, from, to, i, m.zones[i]))
			}
		}
		for i := uint64(r.Start); i < r.end(); i++ {
			m.zones[i] = to
		}
	}
	m.counts[from] -= r.Count
	m.counts[to] += r.Count
}

// spareLocked returns how many of the free zones are kept back.
//
// +checklocks:m.mu
func (m *Map) spareLocked() uint32 {
	keep := uint64(m.total-m.counts[Overhead]) * uint64(m.sparePercent) / 100
	return uint32(min(keep, uint64(m.counts[Free])))
}

// Usage returns a snapshot of the zones by state.
func (m *Map) Usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	spare := m.spareLocked()
	return Usage{
		Total: m.total, Free: m.counts[Free] - spare, Spare: spare,
		Uncommitted: m.counts[Uncommitted], Live: m.counts[Live],
		Draining: m.counts[Draining], Overhead: m.counts[Overhead],
	}
}

// SetSpare changes the share that is kept back, in percent (0..100).
func (m *Map) SetSpare(percent uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setSpareLocked(percent)
}

// +checklocks:m.mu
func (m *Map) setSpareLocked(percent uint8) {
	if percent > 100 {
		panic(fmt.Sprintf("space: %d percent spare", percent))
	}
	m.sparePercent = percent
}

// Longest returns the length of the longest free run, spare zones included.
func (m *Map) Longest() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free.longest()
}
