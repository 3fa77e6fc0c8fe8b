package server

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// What a loop's queue can have at most: operations under way, buffers registered,
// drives registered, rings that it waits for by io_uring. Beyond the buffers and
// drives operations cost more; beyond the words a ring gets a goroutine.
const (
	loopDepth   = 3000
	loopBuffers = 1024
	loopDrives  = 256
	loopWords   = 1024
	// loopEars is how many rings can have a goroutine, which occupies a thread.
	loopEars = 256
	// loopWorkers bounds the kernel threads of a loop, for devices that cannot be
	// asked without blocking: several times what one drive may have under way.
	loopWorkers = 4 * driveOps
)

// ioLoop serves rings: one goroutine with a thread and an I/O queue of its own.
// What is not said to be guarded belongs to that goroutine.
type ioLoop struct {
	srv   *Server
	index int
	test  loopTest

	queue bdev.Queue
	waker bdev.Waker
	words bdev.WordWaiter // nil: rings have goroutines that wait for them
	ready chan struct{}   // closed when there is a queue, or failed is set

	failed error // why there is no queue; final once ready is closed

	sets    []*ringSet
	hot     []*ioRing // to be looked at
	told    []*ioRing // whose clients are to be woken
	ending  []*ioRing // that are closing
	muted   []*ioRing // not to be looked at before their time
	drives  map[*bdev.Drive]*loopDrive
	waiting []*loopDrive // with requests that wait for their turn
	leaving map[*activePool][]chan<- struct{}
	sums    opList // large reads to be verified, and writes whose checksums are to be computed
	turn    int    // which set is looked at first

	now     time.Time
	stale   bool      // time has passed since
	alarm   time.Time // when to look at rings that are muted; zero: none is
	spin    spinner
	stop    bool
	unfixed bool // it was told that memory cannot be registered

	ears sync.WaitGroup // goroutines that wait for bells

	count loopCounters

	mu sync.Mutex
	// +checklocks:mu
	inbox []func()
	// +checklocks:mu
	ended []*ringOp // by others
	// +checklocks:mu
	gone bool // the goroutine has ended, or is about to: nothing is taken any more
}

// loopCounters are what a loop tells. Anybody may read them.
type loopCounters struct {
	sessions, rings         atomic.Int64
	wakeups, ops, bytes     atomic.Uint64
	slow, rereads, emptied  atomic.Uint64
	registered, plain, ears atomic.Int64
}

// loopTest makes a loop do as elsewhere.
type loopTest struct {
	noWords    bool // a kernel without IORING_OP_FUTEX_WAIT
	noURing    bool // io_uring is refused
	noRegister bool // memory cannot be locked
	spins      bool // there are cores for it
}

func newIOLoop(srv *Server, index int, test loopTest) *ioLoop {
	return &ioLoop{
		srv: srv, index: index, test: test, ready: make(chan struct{}),
		drives: make(map[*bdev.Drive]*loopDrive), leaving: make(map[*activePool][]chan<- struct{}),
	}
}

// start makes the loop's queue; it is on the loop's thread.
func (l *ioLoop) start() error {
	defer close(l.ready)
	o := bdev.QueueOptions{
		Depth: loopDepth, MaxWorkers: loopWorkers, Buffers: loopBuffers, Drives: loopDrives, Words: loopWords,
	}
	if l.test.noURing {
		o.Engine = bdev.Pread
	}
	q, err := bdev.NewQueue(nil, o)
	if err != nil {
		l.failed = fmt.Errorf("I/O loop: %w", err)
		return l.failed
	}
	waker, ok := q.(bdev.Waker)
	if !ok {
		panic("server: a queue that cannot be woken")
	}
	l.queue, l.waker = q, waker
	if !l.test.noWords {
		l.words, _ = q.(bdev.WordWaiter)
	}
	return nil
}

// run is the loop's goroutine. It ends after finish, with the last ring.
func (l *ioLoop) run() {
	// The thread is not used by others before: the queue belongs to it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := l.start(); err != nil {
		return
	}
	l.spin.init(l.test.spins, l.srv.loops.procs)
	l.now = l.srv.clock.Now()
	for over := false; !over; {
		over = l.step()
	}
	l.ears.Wait()
	if err := l.queue.Close(); err != nil {
		l.srv.log.Error("I/O loop does not end cleanly", slog.Int("loop", l.index), slog.Any("error", err))
	}
}

// step does what there is to do, and sleeps if that is nothing. It returns true
// when the loop has come to its end.
func (l *ioLoop) step() (over bool) {
	l.stale = true
	if !l.alarm.IsZero() {
		l.unmute()
	}
	busy := l.takeInbox()
	if l.intake() {
		busy = true
	}
	l.dispatchAll()
	summed := l.sumNext()
	if !summed && (!busy || !l.spin.never) {
		busy = l.reap() || busy
	}
	l.tellAll()
	l.endRings()
	switch {
	case l.stop && len(l.sets) == 0 && l.queue.InFlight() == 0 && l.quit():
		return true
	case summed, l.sums.head != nil:
		l.spin.worked()
		return false
	case busy:
		l.spin.worked()
		if !l.spin.never {
			return false
		}
	case l.spin.again(l):
		return false
	}
	// Without cores to look for more at leisure, what was begun is started by
	// the system call that sleeps.
	if l.doze() {
		l.check(l.sleep())
		l.count.wakeups.Add(1)
	} else if busy {
		l.reap()
	}
	return false
}

// reap starts what was begun and ends what has ended, and says whether that was
// anything.
func (l *ioLoop) reap() bool {
	l.stale = true
	n, err := l.queue.Reap(0)
	l.check(err)
	if n > 0 {
		l.dispatchAll()
	}
	return n > 0
}

// sleep waits for anything to do.
func (l *ioLoop) sleep() (err error) {
	if l.alarm.IsZero() {
		l.stale = true
		_, err = l.waker.Sleep()
		return err
	}
	d := max(l.alarm.Sub(l.clock()), time.Microsecond)
	l.stale = true
	_, err = l.waker.SleepFor(d)
	return err
}

// clock returns the time, read once for all that is found at a time.
func (l *ioLoop) clock() time.Time {
	if l.stale {
		l.stale, l.now = false, l.srv.clock.Now()
	}
	return l.now
}

// check says what the queue itself fails at: nothing of a client's makes it.
func (l *ioLoop) check(err error) {
	if err == nil {
		return
	}
	l.srv.complaints.Error("I/O loop's queue fails", slog.Int("loop", l.index), slog.Any("error", err))
	_ = l.srv.clock.Sleep(l.srv.hard, 10*time.Millisecond) //nolint:errcheck // it may be shorter
}

// admits says whether the loop can wait for one more ring. It may err by those
// that come at the same time.
func (l *ioLoop) admits() bool {
	most := int64(loopEars)
	if l.words != nil {
		most += loopWords
	}
	return l.count.rings.Load() < most
}

// do has f called by the loop, and says whether it will be: not after its end.
func (l *ioLoop) do(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return false
	}
	l.inbox = append(l.inbox, f)
	l.waker.Wake() // the queue is closed after gone is set
	return true
}

// pass gives the loop an operation that others have ended. Only one that nobody
// waits for can come after the loop's end.
func (l *ioLoop) pass(x *ringOp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.ended = append(l.ended, x)
	if len(l.ended) == 1 { // else somebody has woken it, and it has not looked since
		l.waker.Wake()
	}
}

// takeInbox does what others ask for and takes what they have ended.
func (l *ioLoop) takeInbox() bool {
	l.mu.Lock()
	inbox, ended := l.inbox, l.ended
	l.inbox, l.ended = nil, nil
	l.mu.Unlock()
	for _, f := range inbox {
		f()
	}
	for i, x := range ended {
		ended[i] = nil
		x.passed()
	}
	l.giveBack(ended)
	return len(inbox)+len(ended) > 0
}

// giveBack lets a list be used again.
func (l *ioLoop) giveBack(ended []*ringOp) {
	if cap(ended) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = ended[:0]
	}
}

// quit lets nothing more in, unless something has come.
func (l *ioLoop) quit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = len(l.inbox) == 0 && len(l.ended) == 0
	return l.gone
}

// wakeAt has the loop awake at a time, or before.
func (l *ioLoop) wakeAt(t time.Time) {
	if l.alarm.IsZero() || t.Before(l.alarm) {
		l.alarm = t
	}
}

// errNoLoops says that a server has no I/O loops.
var errNoLoops = errors.New("the daemon has no I/O loops")
