package bdev

import (
	"context"

	"github.com/mpool-go/mpool/sched"
)

// Ticket remembers how many flushes of a drive had failed when a writer began.
// The zero value stands for the time before the drive was opened.
type Ticket struct {
	failures uint64
}

// flusher shares a drive's flushes among those who need one.
//
// Flushes are numbered by their beginning. Somebody who asks while flush n is
// under way needs flush n+1, because his writes may have ended after n began.
// Whoever comes first flushes for all, then a task does, one flush after another,
// as long as somebody needs one.
type flusher struct {
	drive *Drive
	sched *sched.Sched

	mu   sched.Mutex
	cond sched.Cond // a flush has ended
	// +checklocks:mu
	begun uint64 // number of the last flush that began
	// +checklocks:mu
	ended uint64 // number of the last flush that ended
	// +checklocks:mu
	wanted uint64 // highest number somebody waits for
	// +checklocks:mu
	running bool // somebody flushes
	// +checklocks:mu
	failures uint64 // flushes that failed
	// +checklocks:mu
	waiting int // callers who wait
}

func (f *flusher) init(s *sched.Sched, d *Drive) {
	f.drive, f.sched = d, s
	f.mu.Init(s, sched.RankDrive)
	f.cond.Init(s, &f.mu)
}

// Ticket must be taken before the first write that a later Flush is to cover.
func (d *Drive) Ticket() Ticket {
	return Ticket{failures: d.flushFailures.Load()}
}

// Flush returns nil when a flush that began after this call has succeeded and
// none failed since the ticket was taken: then everything written under the
// ticket, and ended before this call, is durable. It returns ErrFlushFailed if
// one failed, the context's error if that ended first (what is durable is then
// unknown).
func (d *Drive) Flush(ctx context.Context, t Ticket) error {
	return d.flush.flush(ctx, t)
}

func (f *flusher) flush(ctx context.Context, t Ticket) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures != t.failures {
		return ErrFlushFailed
	}
	need := f.begun + 1
	f.wanted = max(f.wanted, need)
	f.waiting++
	err := f.awaitLocked(ctx, need, t)
	f.waiting--
	return err
}

// awaitLocked waits for flush need. If nobody flushes, it does so itself, or
// starts a task when the caller may be called away.
//
// +checklocks:f.mu
func (f *flusher) awaitLocked(ctx context.Context, need uint64, t Ticket) error {
	if !f.running {
		f.running = true
		if f.sched.CanEnd(ctx) {
			f.sched.Go("bdev flush", f.run)
		} else {
			f.flushLocked(need)
		}
	}
	for f.ended < need && f.failures == t.failures {
		if err := f.cond.Wait(ctx); err != nil {
			return err
		}
	}
	if f.failures != t.failures {
		return ErrFlushFailed
	}
	return nil
}

// run is the flushing task.
func (f *flusher) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushLocked(^uint64(0))
}

// flushLocked flushes until nobody needs another or, if a task can go on, until
// flush last has ended.
//
// +checklocks:f.mu
func (f *flusher) flushLocked(last uint64) {
	for f.begun < f.wanted {
		if f.ended >= last {
			f.sched.Go("bdev flush", f.run)
			return
		}
		f.begun++
		f.mu.Unlock()
		b := Batch{Ops: []*Op{{Code: OpFlush}}}
		err := f.drive.Run(context.Background(), &b)
		f.mu.Lock()
		f.ended = f.begun
		if err != nil {
			f.failures++
			f.drive.flushFailures.Store(f.failures)
		}
		f.cond.Broadcast()
	}
	f.running = false
}
