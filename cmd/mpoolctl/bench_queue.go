package main

import (
	"context"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// queuer is a daemon that has asynchronous calls.
type queuer interface {
	lender
	NewQueue(ctx context.Context, o client.QueueOptions) (*client.Queue, error)
}

// benchQueue keeps operations in flight from one goroutine.
type benchQueue struct {
	q    *client.Queue
	bufs []*client.Buffer
	at   []time.Time // when the operation with the buffer of that number began
	done []client.Completion
	l    latencies
	full bool // there is no more room
}

// newQueue makes a queue with a buffer for each operation in flight. close is to
// be called in the end.
func (b *bench) newQueue(ctx context.Context, c benchCase) (*benchQueue, error) {
	d, ok := b.d.(queuer)
	if !ok {
		return nil, api.Errorf(api.ENOTSUP, "", "this connection has no asynchronous calls")
	}
	q, err := d.NewQueue(ctx, client.QueueOptions{Depth: c.depth})
	if err != nil {
		return nil, err
	}
	x := &benchQueue{q: q, at: make([]time.Time, c.depth), done: make([]client.Completion, c.depth)}
	if x.bufs, err = b.borrow(ctx, c); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return x, nil
}

func (x *benchQueue) close() error { return errors.Join(x.q.Close(), giveBack(x.bufs)) }

// submitted is repeat from one goroutine: begin puts an operation with the
// buffer of a number on the queue.
func (b *bench) submitted(ctx context.Context, c benchCase, begin func(x *benchQueue, i int) error) (benchView, error) {
	x, err := b.newQueue(ctx, c)
	if err != nil {
		return benchView{}, err
	}
	clock := b.start(ctx)
	err = x.run(ctx, clock.at, clock.at.Add(b.o.time), begin)
	v := b.describe(clock.stop(), c).counted(&x.l)
	if x.full {
		v.Ended = errBenchEnd.Error()
	}
	return v, errors.Join(err, x.close())
}

// run keeps operations in flight until end, or until one cannot be begun or
// fails, and waits for those that are under way.
func (x *benchQueue) run(ctx context.Context, now, end time.Time, begin func(x *benchQueue, i int) error) (err error) {
	start := func(i int) {
		if err = context.Cause(ctx); err == nil {
			x.at[i] = now
			err = begin(x, i)
		}
	}
	for i := 0; i < len(x.bufs) && err == nil; i++ {
		start(i)
	}
	for x.q.Flight() > 0 {
		// What is under way has no deadline, and ends.
		n, reapErr := x.q.Reap(context.WithoutCancel(ctx), 1, x.done)
		if reapErr != nil {
			return errors.Join(err, reapErr)
		}
		now = time.Now()
		for _, d := range x.done[:n] {
			switch {
			case errors.Is(d.Err, api.EFBIG):
				x.full = true
			case d.Err != nil:
				err = errors.Join(err, d.Err)
			default:
				x.l.add(now.Sub(x.at[d.User]))
			}
			if err == nil && !x.full && now.Before(end) {
				start(int(d.User))
			}
		}
		x.q.Submit()
	}
	return err
}

// readSubmitted is readFrom with asynchronous calls.
func (b *bench) readSubmitted(ctx context.Context, c benchCase, next func(worker int) place) (benchView, error) {
	return b.submitted(ctx, c, func(x *benchQueue, i int) error {
		at := next(0)
		return x.q.Read(at.m, x.bufs[i], at.off, uint64(i))
	})
}

// writeSubmitted is the writers' part with asynchronous calls: each operation in
// flight has a writer of its own, whose mblock is committed when nothing of it
// is under way.
func (b *bench) writeSubmitted(ctx context.Context, c benchCase, writers []*writer) (benchView, error) {
	return b.submitted(ctx, c, func(x *benchQueue, i int) error {
		w := writers[i]
		if err := w.room(ctx, c.size); err != nil {
			return err
		}
		w.at += c.size
		return x.q.Write(w.m, x.bufs[i], uint64(i))
	})
}

// appendSubmitted is appendTo with asynchronous calls.
func (b *bench) appendSubmitted(ctx context.Context, c benchCase, log api.Appender) (benchView, error) {
	return b.submitted(ctx, c, func(x *benchQueue, i int) error {
		return x.q.Append(log, x.bufs[i], !b.o.noSync, uint64(i))
	})
}
