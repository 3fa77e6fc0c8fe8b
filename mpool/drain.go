package mpool

import (
	"context"
	"sort"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// drainer takes freed zones, which no I/O pins any more, through discard to
// being free. It is bounded by the number of zones.
type drainer struct {
	drive *drive
	sched *sched.Sched
	off   bool // no discard
	admit func(context.Context, Priority) error

	mu   sched.Mutex
	cond sched.Cond // zones were released
	// +checklocks:mu
	queue []space.Run
	// +checklocks:mu
	running bool
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	released uint64 // counts batches of released zones
}

func newDrainer(s *sched.Sched, d *drive, opt Options) *drainer {
	q := &drainer{drive: d, sched: s, off: opt.NoDiscard || !d.dev.Geometry().Discard, admit: opt.Admit}
	q.mu.Init(s, sched.RankSpace)
	q.cond.Init(s, &q.mu)
	return q
}

// add gives it a run in state Draining. It does not block.
func (q *drainer) add(r space.Run) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, r)
	if !q.running && !q.closed {
		q.running = true
		q.sched.Go("zone drain", q.run)
	}
}

// run drains until there is nothing left. It is one task per drive at most.
func (q *drainer) run() {
	ctx := context.Background()
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue = nil
		if len(batch) == 0 || q.closed {
			q.running = false
			q.cond.Broadcast()
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		if !q.off && q.admit(ctx, PriorityHigh) == nil {
			q.discard(ctx, batch)
		}
		for _, r := range batch {
			q.drive.zones.Release(r)
		}
		q.mu.Lock()
		q.released++
		q.cond.Broadcast()
		q.mu.Unlock()
	}
}

// discard tells the device, in as few operations as the batch allows. An error
// changes nothing: correctness does not depend on discard.
func (q *drainer) discard(ctx context.Context, batch []space.Run) {
	runs := append([]space.Run(nil), batch...)
	sort.Slice(runs, func(i, j int) bool { return runs[i].Start < runs[j].Start })
	for i := 0; i < len(runs); {
		r := runs[i]
		for i++; i < len(runs) && runs[i].Start == r.Start+r.Count; i++ {
			r.Count += runs[i].Count
		}
		zone := q.drive.geo.zone
		b := bdev.Batch{Ops: []*bdev.Op{{
			Code: bdev.OpDiscard, Offset: int64(r.Start) * zone, Length: int64(r.Count) * zone, Bulk: true,
		}}}
		if err := q.drive.dev.Run(ctx, &b); err != nil {
			return
		}
	}
}

// progress returns a number that changes when zones were released.
func (q *drainer) progress() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.released
}

// errDeactivated ends waits in a pool that is being deactivated.
var errDeactivated = api.Errorf(api.EBADF, "pool", "the pool is deactivated")

// wait returns when progress is no longer what it was, or with the context's
// error.
func (q *drainer) wait(ctx context.Context, was uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.released == was {
		if q.closed {
			return errDeactivated
		}
		if err := q.cond.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close waits for the task to end. What is left is free at the next activation.
func (q *drainer) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.cond.Broadcast()
	for q.running {
		if q.cond.Wait(context.Background()) != nil {
			return
		}
	}
}
