package sched

import (
	"container/heap"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"
)

// Epoch is the time at which every simulation starts.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ErrCut is returned by [Sched.Run] when [Sched.Cut] ended the run.
var ErrCut = errors.New("sched: the simulation was cut")

// ErrDeadlock is returned by [Sched.Run] when tasks are left, none can run and
// no event is due. The error lists them.
var ErrDeadlock = errors.New("sched: deadlock")

// cutPanic unwinds a task at a cut. Nothing else may recover it.
type cutPanic struct{}

// sim is the simulator: its run queue, its clock, its dice.
type sim struct {
	rng   *rand.Rand
	now   time.Time
	steps uint64

	cur      *task
	runnable []*task
	live     map[*task]struct{}
	order    uint64 // tasks and events get rising numbers, so that nothing depends on addresses
	events   eventQueue

	cutting bool
	cut     bool
	failed  any // what a task panicked with
}

// task is one simulated task, a coroutine.
type task struct {
	id    uint64
	name  string
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool

	ranks   []Rank
	woken   bool   // by what it waited for, not by its context
	waiting string // what it is parked on, for the deadlock report
	pos     int    // index in runnable, or -1
}

// event is a callback at a time, run between tasks.
type event struct {
	at   time.Time
	id   uint64
	fn   func()
	dead bool
}

// eventQueue is a heap of events by time; container/heap wants the mixture of
// receivers.
type eventQueue []*event //nolint:recvcheck // see above

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].id < q[j].id
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}

// New makes a simulation whose every choice follows from seed.
func New(seed uint64) *Sched {
	return &Sched{sim: &sim{
		rng:  rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
		now:  Epoch,
		live: make(map[*task]struct{}),
	}}
}

// Simulated says whether s is a simulation.
func (s *Sched) Simulated() bool { return s != nil }

// Rand returns the simulation's dice. Simulated devices draw from it, so that
// one seed decides everything. Only tasks and events may use it. Nil in the
// real world.
func (s *Sched) Rand() *rand.Rand {
	if s == nil {
		return nil
	}
	return s.sim.rng
}

// Steps returns how many times a task was resumed: a position in the run.
func (s *Sched) Steps() uint64 { return s.sim.steps }

// Post runs fn at a later time of the simulation, between tasks: fn must not
// block. Simulated devices complete their I/O with it. Simulation only.
func (s *Sched) Post(d time.Duration, fn func()) { s.sim.post(d, fn) }

// Cut ends the run: every task is unwound where it stands, no event runs any
// more, and Run returns [ErrCut]. Called from a task it does not return.
// Simulation only.
func (s *Sched) Cut() {
	s.sim.cut = true
	s.sim.cutting = true // from here on: the defers of the calling task run first
	if s.sim.cur != nil {
		panic(cutPanic{})
	}
}

// Cutting says whether the run has been cut, or its tasks are being unwound:
// what runs now are defers of tasks that are dead. It stays true until the
// next Run. Simulated devices take no more I/O then. False in the real world.
func (s *Sched) Cutting() bool { return s != nil && (s.sim.cut || s.sim.cutting) }

// Run runs main and every task it starts until all have ended, and returns
// nil; or until a cut or a deadlock. A panic of a task is Run's. After Run the
// simulation may run again (the clock and the dice go on), with no task left
// over from before. Simulation only.
func (s *Sched) Run(main func()) error {
	m := s.sim
	m.cut, m.cutting = false, false
	m.spawn("main", main)
	err := m.loop()
	m.unwind()
	if m.failed != nil {
		f := m.failed
		m.failed = nil
		panic(f)
	}
	return err
}

func (m *sim) loop() error {
	for len(m.live) > 0 {
		if m.cut || m.failed != nil {
			return ErrCut
		}
		if len(m.runnable) == 0 {
			if !m.advance() {
				return fmt.Errorf("%w: %s", ErrDeadlock, m.report())
			}
			continue
		}
		// Events that are due come in at a random moment among the tasks.
		if m.due() && m.rng.Uint32()&1 == 0 {
			m.advance()
			continue
		}
		m.resume(m.runnable[m.rng.IntN(len(m.runnable))])
	}
	if m.cut {
		return ErrCut // the last task made the cut
	}
	return nil
}

// due says whether an event's time has come.
func (m *sim) due() bool {
	// A dead event that is due must not let advance run, or the clock would
	// jump to the next one while tasks could run.
	for len(m.events) > 0 && m.events[0].dead {
		heap.Pop(&m.events)
	}
	return len(m.events) > 0 && !m.events[0].at.After(m.now)
}

// advance runs the next event, moving the clock to it. It returns false when
// there is none.
func (m *sim) advance() bool {
	for len(m.events) > 0 {
		e := heap.Pop(&m.events).(*event)
		if e.dead {
			continue
		}
		if e.at.After(m.now) {
			m.now = e.at
		}
		e.fn()
		return true
	}
	return false
}

func (m *sim) resume(t *task) {
	m.park(t)
	m.cur = t
	m.steps++
	_, alive := t.next()
	m.cur = nil
	if !alive {
		delete(m.live, t)
	}
}

// unwind ends every task that is left, in the order of their starting.
func (m *sim) unwind() {
	m.cutting = true
	for len(m.live) > 0 {
		var first *task
		for t := range m.live {
			if first == nil || t.id < first.id {
				first = t
			}
		}
		m.cur = first
		first.stop()
		m.cur = nil
		delete(m.live, first)
	}
	m.cutting = false
	m.runnable = m.runnable[:0]
	m.events = m.events[:0]
}

func (m *sim) spawn(name string, fn func()) {
	if m.cutting {
		return
	}
	m.order++
	t := &task{id: m.order, name: name, pos: -1}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(cutPanic); !ok && m.failed == nil {
					m.failed = fmt.Sprintf("task %s: %v\n%s", t.name, r, stack())
				}
			}
		}()
		fn()
	})
	m.live[t] = struct{}{}
	m.ready(t)
	m.yield()
}

// ready puts a parked task into the run queue.
func (m *sim) ready(t *task) {
	if t.pos >= 0 {
		return
	}
	t.pos = len(m.runnable)
	m.runnable = append(m.runnable, t)
}

// park takes a task out of the run queue.
func (m *sim) park(t *task) {
	if t.pos < 0 {
		return
	}
	last := len(m.runnable) - 1
	m.runnable[t.pos] = m.runnable[last]
	m.runnable[t.pos].pos = t.pos
	m.runnable[last] = nil
	m.runnable = m.runnable[:last]
	t.pos = -1
}

// yield lets another task run, perhaps. Outside a task it does nothing.
func (m *sim) yield() {
	t := m.cur
	if t == nil || m.cutting {
		return
	}
	if len(m.runnable) == 0 && !m.due() {
		return // nobody else: the dice would choose this task
	}
	m.ready(t)
	m.pause(t)
}

// pause gives the processor back to the loop until somebody resumes the task.
func (m *sim) pause(t *task) {
	if m.cutting {
		return
	}
	if !t.yield(struct{}{}) {
		panic(cutPanic{})
	}
	m.cur = t
	if m.cut {
		panic(cutPanic{})
	}
}

// block parks the running task until another makes it ready.
func (m *sim) block(why string) {
	t := m.cur
	if t == nil {
		panic("sched: blocking call outside a task: " + why)
	}
	t.waiting = why
	m.pause(t)
	t.waiting = ""
}

func (m *sim) post(d time.Duration, fn func()) *event {
	m.order++
	e := &event{at: m.now.Add(d), id: m.order, fn: fn}
	if !m.cutting {
		heap.Push(&m.events, e)
	}
	return e
}

func (m *sim) report() string {
	ids := make([]*task, 0, len(m.live))
	for t := range m.live {
		ids = append(ids, t)
	}
	var b strings.Builder
	for id := uint64(0); id <= m.order && len(ids) > 0; id++ {
		for i, t := range ids {
			if t.id == id {
				fmt.Fprintf(&b, "task %d %s waits for %s; ", t.id, t.name, t.waiting)
				ids = append(ids[:i], ids[i+1:]...)
				break
			}
		}
	}
	return b.String()
}
