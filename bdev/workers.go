package bdev

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// workers do operations by blocking system calls, each in a goroutine, a
// bounded number at a time. A worker ends when it finds nothing to do.
type workers struct {
	do    func(*Op) error
	after func() // if set: called after an operation has ended
	limit int    // workers at most

	mu sched.Mutex
	// +checklocks:mu
	room room // for operations that run or wait to
	// +checklocks:mu
	running int
	// +checklocks:mu
	bulk int // running ones that do an Op.Bulk: at most half, or one
	// +checklocks:mu
	queue [2]opList // ordinary, bulk
	// +checklocks:mu
	idle *sched.Completion // set by close: no worker is left
	// +checklocks:mu
	closed bool
}

// opList is a first-in first-out list of operations.
type opList struct {
	first, last *Op
}

func (l *opList) put(o *Op) {
	o.state.next = nil
	if l.last == nil {
		l.first = o
	} else {
		l.last.state.next = o
	}
	l.last = o
}

func (l *opList) take() *Op {
	o := l.first
	if o != nil {
		l.first, o.state.next = o.state.next, nil
		if l.first == nil {
			l.last = nil
		}
	}
	return o
}

// init must come before the workers are shared.
//
// +checklocksignore
func (w *workers) init(limit, depth int, do func(*Op) error) {
	w.do, w.limit = do, limit
	w.mu.Init(nil, sched.RankQueue)
	w.room.total = max(limit, depth)
}

// start hands the operations to workers and waits for room as long as ctx lasts.
func (w *workers) start(ctx context.Context, ops []*Op) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		cancel(ops, ErrClosed)
		return
	}
	n := w.room.take(len(ops))
	for {
		for _, o := range ops[:n] {
			w.addLocked(o)
		}
		ops = ops[n:]
		if len(ops) == 0 {
			break
		}
		r := w.room.wait(len(ops))
		w.mu.Unlock()
		err := r.done.Wait(ctx)
		w.mu.Lock()
		if err != nil {
			w.room.leave(r)
			w.mu.Unlock()
			cancel(ops, err)
			return
		}
		n = r.granted
	}
	w.mu.Unlock()
}

// force hands over an operation that must not wait for room.
func (w *workers) force(o *Op) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		o.Complete(ErrClosed)
		return
	}
	w.room.used++
	w.addLocked(o)
	w.mu.Unlock()
}

// tryInline does an operation in the caller's goroutine, as if it were a
// worker, unless there are enough.
func (w *workers) tryInline(o *Op) bool {
	w.mu.Lock()
	if w.closed || w.running >= w.limit || w.room.take(1) == 0 {
		w.mu.Unlock()
		return false
	}
	w.running++
	w.mu.Unlock()
	o.Drive.begun(o)
	o.Complete(w.do(o))
	w.mu.Lock()
	w.room.give(1)
	w.running--
	for ok := true; ok && w.running < w.limit; {
		ok = w.spawnLocked()
	}
	w.endLocked()
	w.mu.Unlock()
	return true
}

// +checklocks:w.mu
func (w *workers) addLocked(o *Op) {
	i := 0
	if o.Bulk {
		i = 1
	}
	w.queue[i].put(o)
	if w.running < w.limit {
		w.spawnLocked()
	}
}

// spawnLocked starts a worker if there is something that it may do.
//
// +checklocks:w.mu
func (w *workers) spawnLocked() bool {
	o := w.nextLocked()
	if o == nil {
		return false
	}
	w.running++
	go w.run(o)
	return true
}

// nextLocked takes an operation that may run now.
//
// +checklocks:w.mu
func (w *workers) nextLocked() *Op {
	if o := w.queue[0].take(); o != nil {
		return o
	}
	if w.bulk >= max(1, w.limit/2) {
		return nil
	}
	o := w.queue[1].take()
	if o != nil {
		w.bulk++
	}
	return o
}

func (w *workers) complete(o *Op) {
	o.Complete(w.do(o))
	if w.after != nil {
		w.after()
	}
}

// run is a worker's life.
func (w *workers) run(o *Op) {
	for o != nil {
		bulk := o.Bulk
		w.complete(o)
		w.mu.Lock()
		if bulk {
			w.bulk--
		}
		w.room.give(1)
		o = w.nextLocked()
		if o == nil {
			w.running--
			w.endLocked()
		}
		w.mu.Unlock()
	}
}

// endLocked tells close when the last worker has gone.
//
// +checklocks:w.mu
func (w *workers) endLocked() {
	if w.running == 0 && w.idle != nil {
		w.idle.Done()
		w.idle = nil
	}
}

// close waits until the workers, who have nothing to do, have gone. ErrClosed
// when it was called before.
func (w *workers) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return ErrClosed
	}
	w.closed = true
	if w.running == 0 {
		w.mu.Unlock()
		return nil
	}
	c := new(sched.Completion)
	w.idle = c
	w.mu.Unlock()
	return c.Wait(context.Background())
}
