package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// queueRun keeps operations in flight on one queue, from one goroutine.
type queueRun struct {
	q     *client.Queue
	bufs  []*client.Buffer
	start []time.Time // by the operation's number, which is its buffer's
	done  []client.Completion
	l     measure.Latencies
}

// newQueueRun makes a queue and borrows a buffer of size bytes for each
// operation in flight.
func newQueueRun(ctx context.Context, c *connection, size int) (*queueRun, error) {
	n := c.o.plan.Workers
	q, err := c.NewQueue(ctx, client.QueueOptions{Depth: n})
	if err != nil {
		return nil, err
	}
	r := &queueRun{q: q, bufs: make([]*client.Buffer, n), start: make([]time.Time, n), done: make([]client.Completion, n)}
	data := noise(size)
	for i := range r.bufs {
		if r.bufs[i], err = c.Borrow(ctx, size); err != nil {
			return nil, errors.Join(err, q.Close())
		}
		copy(r.bufs[i].Bytes(), data)
	}
	return r, nil
}

// run begins an operation with each buffer, and another whenever one has ended,
// until begin says that there are no more. begin puts the operation with buffer i
// on the queue.
func (r *queueRun) run(ctx context.Context, o *options, begin func(i int) (more bool, err error)) (*measure.Result, error) {
	if err := o.measured(); err != nil {
		return nil, err
	}
	clock := measure.StartWith(o.plan.Daemon)
	now := time.Now()
	for i := range r.bufs {
		r.start[i] = now
		if more, err := begin(i); err != nil || !more {
			if err != nil {
				return nil, err
			}
			break
		}
	}
	for r.q.Flight() > 0 {
		n, err := r.q.Reap(ctx, max(len(r.bufs)/8, 1), r.done)
		if err != nil {
			return nil, err
		}
		now = time.Now()
		for k := range n {
			x := &r.done[k]
			if x.Err != nil {
				return nil, x.Err
			}
			i := int(x.User)
			if x.N != r.bufs[i].Len() {
				return nil, fmt.Errorf("%d bytes moved, not %d", x.N, r.bufs[i].Len())
			}
			r.l.Add(now.Sub(r.start[i]))
			r.start[i] = now
			if _, err := begin(i); err != nil {
				return nil, err
			}
		}
		r.q.Submit()
	}
	res := clock.Stop()
	res.Latencies(r.l)
	return res, r.close()
}

func (r *queueRun) close() error {
	err := r.q.Close()
	for _, b := range r.bufs {
		err = errors.Join(err, b.Release())
	}
	return err
}

// clientReadQueue reads at random with the asynchronous calls.
func clientReadQueue(c *connection, list []api.Mblock) (*measure.Result, error) {
	ctx := context.Background()
	r, err := newQueueRun(ctx, c, readSize)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	end := time.Now().Add(c.o.plan.Time)
	return r.run(ctx, c.o, func(i int) (bool, error) {
		if !r.start[i].Before(end) {
			return false, nil
		}
		m := list[rng.IntN(len(list))]
		return true, r.q.Read(m, r.bufs[i], rng.Int64N(mblockSize/readSize)*readSize, uint64(i))
	})
}

// pieces calls begin with the mblocks' pieces of 1 MiB, one after another, one
// each time that what it returns is called.
func pieces(list []api.Mblock, begin func(m api.Mblock, off int64, i int) error) func(i int) (bool, error) {
	next := int64(0)
	return func(i int) (bool, error) {
		at := next * seqSize
		if at >= int64(len(list))*seqWhole {
			return false, nil
		}
		next++
		return true, begin(list[at/seqWhole], at%seqWhole, i)
	}
}

// clientWriteBorrowed writes memory that is shared with the daemon.
func clientWriteBorrowed(ctx context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	r, err := newQueueRun(ctx, c, seqSize)
	if err != nil {
		return nil, err
	}
	return r.run(ctx, c.o, pieces(list, func(m api.Mblock, _ int64, i int) error {
		return r.q.Write(m, r.bufs[i], uint64(i))
	}))
}

// clientScanBorrowed reads into memory that is shared with the daemon.
func clientScanBorrowed(ctx context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	r, err := newQueueRun(ctx, c, seqSize)
	if err != nil {
		return nil, err
	}
	return r.run(ctx, c.o, pieces(list, func(m api.Mblock, off int64, i int) error {
		return r.q.Read(m, r.bufs[i], off, uint64(i))
	}))
}
