package mpool

import (
	"cmp"
	"context"
	"slices"

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
	admit func(context.Context, Priority) (done func(), err error)
	freed *releases // told of released zones

	ctx    context.Context // ends with the pool
	cancel context.CancelFunc

	mu   sched.Mutex
	cond sched.Cond // running has ended
	// +checklocks:mu
	queue []space.Run
	// +checklocks:mu
	running bool
	// +checklocks:mu
	closed bool
}

func newDrainer(p *Pool, d *drive) *drainer {
	s := p.sched
	q := &drainer{drive: d, sched: s, admit: p.opt.admitted, freed: &p.freed}
	q.off = p.opt.NoDiscard || d.dev == nil || !d.dev.Geometry().Discard
	q.ctx, q.cancel = s.WithCancel(context.Background())
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

// discardsAtOnce is how many discards are in flight at a time: one system call
// starts and awaits them all. The engine bounds those that the kernel's workers
// do at once.
const discardsAtOnce = 16

// run drains until there is nothing left. It is one task per drive at most.
func (q *drainer) run() {
	for {
		q.mu.Lock()
		queue := q.queue
		q.queue = nil
		if len(queue) == 0 || q.closed {
			q.running = false
			q.cond.Broadcast()
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		// Zones are free as soon as their own discard has ended: an allocation
		// may wait for them, and the queue may be long.
		for batch := range slices.Chunk(merged(queue), discardsAtOnce) {
			q.discard(batch)
			for _, r := range batch {
				q.drive.zones.Release(r)
			}
			q.freed.note()
		}
	}
}

// merged sorts runs that do not overlap and joins those that touch.
func merged(runs []space.Run) []space.Run {
	slices.SortFunc(runs, func(a, b space.Run) int { return cmp.Compare(a.Start, b.Start) })
	out := runs[:1]
	for _, r := range runs[1:] {
		if last := &out[len(out)-1]; last.Start+last.Count == r.Start {
			last.Count += r.Count
		} else {
			out = append(out, r)
		}
	}
	return out
}

// discard tells the device, when it may. An error changes nothing: correctness does
// not depend on discard.
func (q *drainer) discard(runs []space.Run) {
	if q.off {
		return
	}
	done, err := q.admit(q.ctx, PriorityHigh)
	if err != nil {
		return // the pool is being deactivated
	}
	defer done()
	zone := q.drive.geo.zone
	ops := make([]bdev.Op, len(runs))
	b := bdev.Batch{Ops: make([]*bdev.Op, len(runs))}
	for i, r := range runs {
		ops[i] = bdev.Op{
			Code: bdev.OpDiscard, Offset: int64(r.Start) * zone, Length: int64(r.Count) * zone, Bulk: true,
		}
		b.Ops[i] = &ops[i]
	}
	_ = q.drive.dev.Run(context.Background(), &b) //nolint:errcheck // see above
}

// close waits for the task to end. What is left is free at the next activation.
func (q *drainer) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.cancel()
	for q.running {
		if q.cond.Wait(context.Background()) != nil {
			return
		}
	}
}
