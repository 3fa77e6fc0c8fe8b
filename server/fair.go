package server

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/sched"
)

// kind is what a request needs while it runs. Each kind has a number of places
// of its own, so that none waits for another's: a request for what is in memory
// not for the drives, a commit not for bulk reads and writes.
type kind uint8

const (
	// unscheduled requests wait for something that requests do not bring about,
	// or for each other, and begin at once: a wait for events, the change of a
	// whole pool. There is nothing to be had by making many of them.
	unscheduled kind = iota
	quick            // is done in memory
	bulk             // moves data from or to drives
	durable          // waits for a flush, which it shares with others
	background       // is a background step of the pool's
	kinds
)

// opKinds is never written.
var opKinds = [ioctl.NumOps]kind{
	ioctl.OpArena: quick, ioctl.OpArenaMapped: quick, ioctl.OpVersion: quick, ioctl.OpStat: quick,
	ioctl.OpRing: quick, ioctl.OpPoolList: quick, ioctl.OpPoolShow: quick, ioctl.OpPoolOpen: quick,
	ioctl.OpClientList: quick, ioctl.OpHandleList: quick, ioctl.OpObjectInfo: quick, ioctl.OpObjectGet: quick,
	ioctl.OpObjectAbort: quick, ioctl.OpListOpen: quick, ioctl.OpListNext: quick, ioctl.OpRootsList: quick,
	ioctl.OpOwnerList: quick, ioctl.OpQuotaShow: quick, ioctl.OpMblockAlloc: quick, ioctl.OpMblockFind: quick, ioctl.OpMlogAlloc: quick,
	ioctl.OpMlogFind: quick, ioctl.OpMDCUsage: quick, ioctl.OpGrant: quick, ioctl.OpRevoke: quick,
	ioctl.OpAccept: quick, ioctl.OpScopeList: quick, ioctl.OpScopeSet: quick,
	ioctl.OpCreditList: quick,

	ioctl.OpMblockWrite: bulk, ioctl.OpMblockRead: bulk, ioctl.OpAppend: bulk, ioctl.OpReadNext: bulk,
	ioctl.OpReadSeek: bulk, ioctl.OpMlogOpenRead: bulk, ioctl.OpMDCAppend: bulk, ioctl.OpMDCOpenRead: bulk,
	ioctl.OpMDCCompactAppend: bulk,

	ioctl.OpPoolScrub: background,

	ioctl.OpClose: durable, ioctl.OpObjectCommit: durable, ioctl.OpObjectDelete: durable,
	ioctl.OpCommitMany: durable, ioctl.OpRootsSet: durable, ioctl.OpOwnerAdd: durable, ioctl.OpQuotaSet: durable, ioctl.OpQuotaClaim: durable,
	ioctl.OpMlogOpenAppend: durable, ioctl.OpMlogErase: durable, ioctl.OpSync: durable,
	ioctl.OpMblockPut: durable,
	ioctl.OpMDCCreate: durable, ioctl.OpMDCOpen: durable, ioctl.OpMDCDelete: durable, ioctl.OpMDCSync: durable,
	ioctl.OpMDCCompactStart: durable, ioctl.OpMDCCompactEnd: durable, ioctl.OpMDCCompactAbort: durable,
}

// kindOf returns a request's kind and how many bytes of data it moves.
func kindOf(op ioctl.Op, m ioctl.Message) (kind, int64) {
	k, n := opKinds[op], uint32(0)
	switch m := m.(type) {
	case *ioctl.MblockWrite:
		n = m.Data.Length
	case *ioctl.MblockRead:
		n = m.Into.Length
	case *ioctl.ReadNext:
		n = m.Into.Length
	case *ioctl.MblockPut:
		n = m.Data.Length
	case *ioctl.AppendRecord:
		n = m.Data.Length
		if m.Sync {
			k = durable
		}
	}
	return k, min(int64(n), maxTurnBytes)
}

// maxTurnBytes is for how much a request counts at most, whatever it says.
const maxTurnBytes = 16 << 20

// task is what waits for its turn, and has it.
type task struct {
	do   func() // in a goroutine of its own when the turn has come; the turn ends with it, or by end
	kind kind
	size int64 // bytes of data
	// quit is called instead of do when ctx has ended before the turn has come.
	ctx  context.Context
	quit func()
	stop func() bool // the watch for that

	in         *list     // where it is: its process's queue, or those that run; nil else
	prev, next *task     // in that
	then       *task     // begins with it
	began      time.Time // its turn
}

// fair gives requests their turns. A bounded number of each kind runs at one
// time; those that wait are served so that each process gets as many bytes as
// the others, and who asks for less than his share is next when he asks. A
// session belongs to a process: making more sessions gains nothing.
//
// Whoever has his turn for longer than it should take is presumed to wait, for a
// hanging drive or for another request: his place is lent to the next one. So
// nothing that holds requests up holds up those that do not need it, and no
// request waits for ever for a place that one holds that waits for it.
//
// It has no goroutine: who ends begins the next.
type fair struct {
	clock *sched.Sched

	mu sync.Mutex
	// +checklocks:mu
	lanes [kinds]lane
	// +checklocks:mu
	flows map[int32]*flow // by process
	// +checklocks:mu
	joined int // since processes that are gone were forgotten
}

// flow is one process.
type flow struct {
	pid    int32
	users  int // sessions
	coming int // of these, those that are not let in yet
	queues [kinds]queue
	pace   pace
}

func (f *fair) init(clock *sched.Sched, processors int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock, f.flows = clock, make(map[int32]*flow)
	// Half of the processors are left to those who read messages, to the loops
	// of rings, and to clients.
	f.lanes[quick] = lane{places: max(1, processors/2), maxBytes: 1 << 40, slice: 2 * time.Millisecond}
	f.lanes[bulk] = lane{places: max(16, 8*processors), maxBytes: max(8, 4*int64(processors)) << 20, slice: 50 * time.Millisecond}
	f.lanes[background] = lane{places: max(1, processors/2), maxBytes: 1 << 40, slice: 50 * time.Millisecond}
	f.lanes[durable] = lane{places: max(64, 32*processors), maxBytes: 1 << 40, slice: 50 * time.Millisecond}
}

// submit lets the task begin when its turn has come.
func (f *fair) submit(fl *flow, t *task) {
	if t.kind == unscheduled {
		go t.do()
		return
	}
	f.mu.Lock()
	l, q := &f.lanes[t.kind], &fl.queues[t.kind]
	l.wait(q, t)
	next := f.beginLocked(l)
	if t.in == &q.tasks {
		t.stop = context.AfterFunc(t.ctx, func() {
			if f.withdraw(q, t) {
				t.quit()
			}
		})
	}
	f.mu.Unlock()
	f.launch(next)
}

// turn waits for a turn and returns what ends it; an error if ctx has ended
// before.
func (f *fair) turn(ctx context.Context, fl *flow, k kind, size int64) (end func(), err error) {
	begun, over := make(chan bool, 1), make(chan struct{})
	f.submit(fl, &task{
		kind: k, size: size, ctx: ctx,
		do:   func() { begun <- true; <-over },
		quit: func() { begun <- false },
	})
	if !<-begun {
		return nil, context.Cause(ctx)
	}
	return func() { close(over) }, nil
}

// withdraw takes a task back that waits; false: it has begun.
func (f *fair) withdraw(q *queue, t *task) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.in != &q.tasks {
		return false
	}
	f.lanes[t.kind].withdraw(q, t)
	return true
}

// end ends a turn before its task has ended.
func (f *fair) end(t *task) { f.launch(f.endOf(t)) }

// endOf ends a turn, unless it has ended, and returns what begins now, linked by
// then.
func (f *fair) endOf(t *task) *task {
	if t.kind == unscheduled {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &f.lanes[t.kind]
	if t.in == &l.running {
		l.leave(t)
	}
	return f.beginLocked(l)
}

// run runs a task, and then the next one.
func (f *fair) run(t *task) {
	for {
		t.do()
		next := f.endOf(t)
		if next == nil {
			return
		}
		t = next
		f.launch(t.then)
		// Others that can run go first: readers, and the other kinds.
		runtime.Gosched()
	}
}

// launch runs tasks that are linked by then.
func (f *fair) launch(t *task) {
	for t != nil {
		next := t.then
		go f.run(t)
		t = next
	}
}

// beginLocked begins as many turns as there are places for, and returns their
// tasks, linked by then.
//
// +checklocks:f.mu
func (f *fair) beginLocked(l *lane) (first *task) {
	end := &first
	for t := l.pick(); t != nil; t = l.pick() {
		t.began, t.then = f.clock.Now(), nil
		if t.stop != nil {
			t.stop()
		}
		*end, end = t, &t.then
	}
	if len(l.waiting) > 0 && !l.timing && l.running.first != nil {
		l.timing = true
		time.AfterFunc(l.slice-f.clock.Now().Sub(l.running.first.began), func() { f.launch(f.lend(l)) })
	}
	return first
}

// lend lends the places of those that have had theirs for too long, and returns
// what begins now.
func (f *fair) lend(l *lane) *task {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.timing = false
	for now := f.clock.Now(); l.running.first != nil && now.Sub(l.running.first.began) >= l.slice; {
		l.leave(l.running.first)
	}
	return f.beginLocked(l)
}

// join returns the flow of a process for a session that begins, or nil if too
// many of that process wait to be let in. enter and leave are then called once.
func (f *fair) join(pid int32) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.flows[pid]
	if fl == nil {
		f.forgetLocked()
		fl = &flow{pid: pid}
		f.flows[pid] = fl
	}
	if fl.coming >= maxComing {
		return nil
	}
	fl.coming++
	fl.users++
	return fl
}

// entered says that a session waits no more to be let in.
func (f *fair) entered(fl *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.coming--
}

func (f *fair) leave(fl *flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.users--
	if fl.users == 0 && fl.pace.full(f.clock.Now()) {
		delete(f.flows, fl.pid)
	}
}

// maxComing is how many sessions of one process may wait to be let in.
const maxComing = 64

// maxGone bounds how many processes without a session are remembered for what
// they have spent.
const maxGone = 1024

// forgetLocked forgets processes that have no session, if there are many.
//
// +checklocks:f.mu
func (f *fair) forgetLocked() {
	f.joined++
	if f.joined < maxGone {
		return
	}
	f.joined = 0
	for pid, fl := range f.flows {
		if fl.users == 0 {
			delete(f.flows, pid)
		}
	}
}

// spend takes from what a process may cost the daemon beyond its requests'
// turns, and returns how long it has to wait for that.
func (f *fair) spend(fl *flow, cost time.Duration) (wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fl.pace.spend(f.clock.Now(), cost)
}
