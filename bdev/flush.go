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
// One task runs flushes, one after another, as long as somebody needs one.
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
	running bool // the task is alive
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

// awaitLocked starts the task if there is none and waits for flush need.
//
// +checklocks:f.mu
func (f *flusher) awaitLocked(ctx context.Context, need uint64, t Ticket) error {
	if !f.running {
		f.running = true
		f.sched.Go("bdev flush", f.run)
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

// run flushes until nobody needs another.
func (f *flusher) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.begun < f.wanted {
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
