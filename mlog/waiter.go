package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/sched"
)

// waiter is one who waits until records are durable: a task, or somebody who
// left word how to be told.
type waiter struct {
	records uint64 // how many
	told    bool   // out of the list: done is, or is about to be, completed
	writes  bool   // it is the log's writer, until its records are durable
	err     error
	call    func(error) // called instead of completing done
	done    sched.Completion
}

// tell says that the wait is over. The waiter is its owner's from then on, unless
// it was called.
func (w *waiter) tell() {
	if w.call != nil {
		w.call(w.err)
		return
	}
	w.done.Done()
}

// waiters are those who wait, and waiters to be used again. Guarded by the
// log's mutex.
type waiters struct {
	list []*waiter
	free []*waiter
}

// keepWaiters bounds the waiters that are kept for use again.
const keepWaiters = 256

func (q *waiters) add(s *sched.Sched, records uint64) *waiter {
	var w *waiter
	if n := len(q.free); n > 0 {
		w = q.free[n-1]
		q.free = q.free[:n-1]
	} else {
		w = new(waiter)
		w.done.Init(s)
	}
	w.records = records
	q.list = append(q.list, w)
	return w
}

// take moves those who wait for no more than so many records to dst.
func (q *waiters) take(records uint64, dst []*waiter) []*waiter {
	kept := 0
	for _, w := range q.list {
		if w.records <= records {
			w.told = true
			dst = append(dst, w)
			continue
		}
		q.list[kept] = w
		kept++
	}
	clear(q.list[kept:])
	q.list = q.list[:kept]
	return dst
}

// remove takes out a waiter who no longer waits.
func (q *waiters) remove(w *waiter) {
	for i, o := range q.list {
		if o == w {
			last := len(q.list) - 1
			q.list[i] = q.list[last]
			q.list[last] = nil
			q.list = q.list[:last]
			return
		}
	}
}

// put keeps a waiter whose owner has done with it.
func (q *waiters) put(w *waiter) {
	if len(q.free) < keepWaiters {
		w.told, w.writes, w.err, w.call = false, false, nil, nil
		w.done.Reset()
		q.free = append(q.free, w)
	}
}

// Sync returns when every record appended before the call is durable. Errors:
// ETIMEDOUT, ECANCELED; EUNKNOWN (the write of these records failed: they may
// be durable or not); EIO (the log is poisoned); EBADF (closed).
func (l *Log) Sync(ctx context.Context) error { return l.SyncTo(ctx, ^uint64(0)) }

// SyncTo returns when all records with numbers below records are durable; those
// that were not appended before the call do not count. Errors as Sync.
func (l *Log) SyncTo(ctx context.Context, records uint64) error {
	l.mu.Lock()
	records, done, err := l.syncLocked(records)
	if done || err != nil {
		l.mu.Unlock()
		return err
	}
	w := l.joinLocked(ctx, records)
	l.mu.Unlock()
	return l.await(ctx, w)
}

// BeginSync is Sync without waiting: done is called with what Sync would return.
// See [Log.BeginAppend] for when and how. Errors, after which done is not called:
// EUNKNOWN, EIO, EBADF, as of Sync.
func (l *Log) BeginSync(done func(error)) error { return l.BeginSyncTo(^uint64(0), done) }

// BeginSyncTo is SyncTo, as BeginSync is Sync.
func (l *Log) BeginSyncTo(records uint64, done func(error)) error {
	l.mu.Lock()
	records, durable, err := l.syncLocked(records)
	if err == nil && !durable {
		l.callLocked(records, done)
	}
	l.mu.Unlock()
	if durable {
		done(nil)
	}
	return err
}

// syncLocked returns which records a sync is to wait for, or that they are
// durable, or why they will not be.
//
// +checklocks:l.mu
func (l *Log) syncLocked(records uint64) (n uint64, durable bool, err error) {
	n = min(records, l.records)
	switch {
	case n <= l.durable.records:
		return n, true, nil
	case l.failed != nil:
		return n, false, l.failureLocked("mlog sync", n)
	case l.closing:
		return n, false, &api.Error{Code: api.EBADF, Op: "mlog sync", Object: l.c.ID, Detail: "the log is closed"}
	}
	return n, false, nil
}

// callLocked makes a waiter that is told by a call. There will be a writer.
//
// +checklocks:l.mu
func (l *Log) callLocked(records uint64, done func(error)) {
	l.waiters.add(l.c.Sched, records).call = done
	l.expect(1)
	l.wantLocked(records)
}

// joinLocked makes a waiter. If there is no writer, and nobody can call the
// caller away, he is the writer himself: then nothing is handed over and back,
// which costs a lone appender more than the write does.
//
// +checklocks:l.mu
func (l *Log) joinLocked(ctx context.Context, records uint64) *waiter {
	w := l.waiters.add(l.c.Sched, records)
	w.writes = !l.writing && l.failed == nil && !l.abandoned && !l.c.Sched.CanEnd(ctx)
	if w.writes {
		l.want, l.writing = max(l.want, records), true
	} else {
		l.expect(1)
		l.wantLocked(records)
	}
	return w
}

// expect counts those who wait for somebody else to write, for the drive's writers.
func (l *Log) expect(n int) {
	if l.c.Writers != nil {
		l.c.Writers.here.Add(int64(n))
	}
}

// await waits for what w waits for.
func (l *Log) await(ctx context.Context, w *waiter) error {
	if w.writes {
		l.writeTo(w.records)
	}
	if err := w.done.Wait(ctx); err != nil {
		l.mu.Lock()
		if !w.told {
			l.waiters.remove(w)
			l.waiters.put(w)
			l.expect(-1)
			l.mu.Unlock()
			e := api.ContextError("mlog sync", err)
			e.Object = l.c.ID
			return e
		}
		l.mu.Unlock()
		// The writer has it and completes it without waiting for anything.
		if err := w.done.Wait(context.WithoutCancel(ctx)); err != nil {
			return l.c.ioError("mlog sync", err)
		}
	}
	err := w.err
	l.mu.Lock()
	l.waiters.put(w)
	l.mu.Unlock()
	return err
}
