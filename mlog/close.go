package mlog

import (
	"context"

	"github.com/mpool-go/mpool/api"
)

// Close syncs and closes. If something was appended since the log was opened,
// one more group marks the close as clean: it proves, should the last pages rot,
// that they were there. Reads of its readers that are under way are waited for.
// The log is closed whatever is returned; the error is that of the sync, or the
// context's (the writer then goes on until it is done).
func (l *Log) Close(ctx context.Context) error { return l.end(ctx, false) }

// Abandon closes without sync: a group in flight is waited for, what else was
// appended is given up. The error is the context's.
func (l *Log) Abandon(ctx context.Context) error { return l.end(ctx, true) }

func (l *Log) end(ctx context.Context, abandon bool) error {
	const op = "mlog close"
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing && !abandon {
		return &api.Error{Code: api.EBADF, Op: op, Object: l.c.ID, Detail: "the log is closed already"}
	}
	l.stopLocked(abandon)
	if !abandon && l.dirty {
		l.wantLocked(l.records)
	}
	for l.writing || l.reading > 0 {
		if err := l.idle.Wait(ctx); err != nil {
			e := api.ContextError(op, err)
			e.Object = l.c.ID
			return e
		}
	}
	l.restLocked()
	if !abandon && l.durable.records < l.records {
		return l.failureLocked(op, l.records)
	}
	return nil
}

// Confirm writes one more group, if nothing is under way and the last one is
// only known here to be durable: it says so, should its pages rot. It does not
// wait. It returns false if something is under way, which may be the last.
func (l *Log) Confirm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing {
		return false
	}
	if l.unsaid && !l.closing {
		l.say = true
		l.startLocked()
	}
	return true
}

// pin counts a read of the extent in or out. While there are any, the log is not
// closed.
func (l *Log) pin(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading += n; l.reading == 0 && l.closing {
		l.idle.Broadcast()
	}
}

// stop begins to abandon the log: nothing more is appended, and no other group
// begins.
func (l *Log) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopLocked(true)
}

// +checklocks:l.mu
func (l *Log) stopLocked(abandon bool) {
	l.closing = true
	l.closed.Store(true)
	l.abandoned = l.abandoned || abandon
	l.idle.Broadcast() // appends that wait for room
}

// Len returns how many records the log has, durable or not, and their bytes.
func (l *Log) Len() (records uint64, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records, l.bytes
}

// Records returns how many records the log has, durable or not.
func (l *Log) Records() uint64 {
	n, _ := l.Len()
	return n
}

// Durable returns how many records are durable, and their bytes.
func (l *Log) Durable() (records uint64, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.records, l.durable.bytes
}

// Used returns the payload bytes that are used; see [Usable].
func (l *Log) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pos.bytes()
}

// Capacity returns the payload bytes of the log.
func (l *Log) Capacity() int64 { return Usable(l.c.Extent.Blocks) }

// Free returns the payload bytes that are left; see [Cost].
func (l *Log) Free() int64 { return l.Capacity() - l.Used() }

// FreeFor says whether a record of n bytes would fit now.
func (l *Log) FreeFor(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n <= MaxRecord && l.pos.after(n).fits(l.finals)
}

// Generation returns the log's generation.
func (l *Log) Generation() uint64 { return l.c.Generation }

// Err returns why the log is poisoned, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Stats returns a snapshot of the counters.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}
