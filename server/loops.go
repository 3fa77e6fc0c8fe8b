package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/mpool-go/mpool/bdev"
)

// maxLoops is the most I/O loops that a server starts by itself; MaxLoops those
// that it can be given.
const (
	autoLoops = 4
	MaxLoops  = 64
)

// DefaultLoops returns how many I/O loops a server starts at most if
// Options.Loops is 0.
func DefaultLoops() int { return min(max(runtime.GOMAXPROCS(0)/2, 1), autoLoops) }

// ioLoops are the server's I/O loops. They start with the first sessions that
// have rings, and end with the server.
type ioLoops struct {
	srv   *Server
	most  int // negative: none
	procs int // that the process may use: GOMAXPROCS when the server was made, which may be raised since
	test  loopTest

	running sync.WaitGroup

	mu sync.Mutex
	// +checklocks:mu
	list []*ioLoop
	// +checklocks:mu
	stopped bool
}

// init makes the set of no loops.
func (ls *ioLoops) init(srv *Server, most int, test loopTest) {
	if most == 0 {
		most = DefaultLoops()
	}
	ls.srv, ls.most, ls.procs, ls.test = srv, most, runtime.GOMAXPROCS(0), test
}

// assign chooses the loop of a session that gets its first ring: the one with the
// fewest sessions, or a new one. The session is counted until the loop drops it.
func (ls *ioLoops) assign() (*ioLoop, error) {
	l, err := ls.choose()
	if err != nil {
		return nil, err
	}
	<-l.ready
	if l.failed != nil {
		ls.mu.Lock()
		ls.list = without(ls.list, l) // the next one may have better luck
		ls.mu.Unlock()
		return nil, l.failed
	}
	return l, nil
}

func (ls *ioLoops) choose() (*ioLoop, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopped || ls.most < 0 {
		return nil, errNoLoops
	}
	var least *ioLoop
	for _, l := range ls.list {
		if least == nil || l.count.sessions.Load() < least.count.sessions.Load() {
			least = l
		}
	}
	if least == nil || least.count.sessions.Load() > 0 && len(ls.list) < ls.most {
		least = newIOLoop(ls.srv, len(ls.list), ls.test)
		ls.list = append(ls.list, least)
		ls.running.Go(least.run)
		ls.running.Go(func() { ls.tell(least) })
	}
	least.count.sessions.Add(1)
	return least, nil
}

// tell logs how a loop works.
func (ls *ioLoops) tell(l *ioLoop) {
	<-l.ready
	if l.failed != nil {
		ls.srv.log.Error("I/O loop not started", slog.Any("error", l.failed))
		return
	}
	_, registers := l.queue.(bdev.Registrar)
	ls.srv.log.Info("I/O loop started", slog.Int("loop", l.index), slog.Bool("registers_memory", registers && !l.test.noRegister),
		slog.Bool("futex_wait", l.words != nil))
}

// all returns the loops that run.
func (ls *ioLoops) all() []*ioLoop {
	ls.mu.Lock()
	list := append([]*ioLoop(nil), ls.list...)
	ls.mu.Unlock()
	running := list[:0]
	for _, l := range list {
		if <-l.ready; l.failed == nil {
			running = append(running, l)
		}
	}
	return running
}

// release has all loops let go of a pool's drives, as soon as none of their
// operations on them is under way. A pool is closed after that: a drive that is
// registered with a queue stays claimed. Nobody has the pool open any more, so
// they do not come back.
func (ls *ioLoops) release(ctx context.Context, a *activePool) error {
	for _, l := range ls.all() {
		done := make(chan struct{})
		if !l.do(func() { l.letGo(a, done) }) {
			continue
		}
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("I/O of ended sessions is still under way: %w", context.Cause(ctx))
		}
	}
	return nil
}

// end ends the loops, whose sessions have ended, and waits for them.
func (ls *ioLoops) end(ctx context.Context) error {
	ls.mu.Lock()
	ls.stopped = true
	ls.mu.Unlock()
	for _, l := range ls.all() {
		l.do(func() { l.stop = true })
	}
	done := make(chan struct{})
	go func() {
		ls.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("an I/O loop did not end in time: %w", context.Cause(ctx))
	}
}
