package mpool

import (
	"context"
	"sort"

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

// run drains until there is nothing left. It is one task per drive at most.
func (q *drainer) run() {
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
		if !q.off && q.admit(q.ctx, PriorityHigh) == nil {
			q.discard(context.Background(), batch)
		}
		for _, r := range batch {
			q.drive.zones.Release(r)
		}
		q.freed.note()
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
