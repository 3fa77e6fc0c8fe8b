package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// durableDepth is how many pieces of 1 MiB of all mblocks together are being
// written, as fio's depth says.
const durableDepth = 8

// durableRun stores mblocks from one goroutine, out of memory borrowed from the
// daemon: each is allocated, written in pieces of 1 MiB, and committed behind its
// last piece.
type durableRun struct {
	*queueRun
	pool api.Pool
	free []int // buffers
	list []storing
	left int64 // mblocks to be begun
}

// storing is an mblock in flight, or none.
type storing struct {
	m     api.Mblock // nil: not allocated yet
	sent  int        // bytes given to the queue
	begun time.Time
}

// What an operation's User says beside the number of its mblock and buffer.
const (
	durableAlloc = iota
	durableWrite
	durableCommit
	durableRelease
)

func durableUser(kind, i, buf int) uint64 { return uint64(kind<<32 | i<<16 | buf) }

// clientDurableBorrowed is clientDurable with a queue and borrowed memory.
func clientDurableBorrowed(ctx context.Context, c *connection) (*measure.Result, error) {
	o := c.o
	n := o.plan.Workers
	q, err := c.NewQueue(ctx, client.QueueOptions{Depth: durableDepth + 2*n})
	if err != nil {
		return nil, err
	}
	r := &durableRun{queueRun: &queueRun{q: q, done: make([]client.Completion, durableDepth)}, pool: c.pool, list: make([]storing, n), left: o.plan.Ops}
	data := noise(seqSize)
	for i := range durableDepth {
		b, err := c.Borrow(ctx, seqSize)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		copy(b.Bytes(), data)
		r.bufs, r.free = append(r.bufs, b), append(r.free, i)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	clock := measure.StartWith(o.plan.Daemon)
	for i := range r.list {
		if err := r.alloc(i); err != nil {
			return nil, err
		}
	}
	for q.Flight() > 0 {
		k, err := q.Reap(ctx, 1, r.done)
		if err != nil {
			return nil, err
		}
		for i := range k {
			if err := r.ended(&r.done[i]); err != nil {
				return nil, err
			}
		}
		if err := r.write(); err != nil {
			return nil, err
		}
		q.Submit()
	}
	res := clock.Stop()
	res.Latencies(r.l)
	return res, r.close()
}

// alloc begins another mblock, if there is one to be stored.
func (r *durableRun) alloc(i int) error {
	r.list[i] = storing{sent: mblockSize, begun: time.Now()}
	if r.left == 0 {
		return nil
	}
	r.left--
	return r.q.Alloc(r.pool, api.AllocOptions{Capacity: mblockSize}, durableUser(durableAlloc, i, 0))
}

// write gives the queue as many pieces as there are buffers, those of the mblock
// that was begun first before others.
func (r *durableRun) write() error {
	for len(r.free) > 0 {
		first := -1
		for i := range r.list {
			if r.list[i].sent < mblockSize && (first < 0 || r.list[i].begun.Before(r.list[first].begun)) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		s, buf := &r.list[first], r.free[len(r.free)-1]
		r.free = r.free[:len(r.free)-1]
		if err := r.q.Write(s.m, r.bufs[buf], durableUser(durableWrite, first, buf)); err != nil {
			return err
		}
		if s.sent += seqSize; s.sent == mblockSize {
			if err := r.q.Commit(s.m, durableUser(durableCommit, first, 0)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ended goes on with an mblock of which an operation has ended.
func (r *durableRun) ended(x *client.Completion) error {
	if x.Err != nil {
		return x.Err
	}
	i, buf := int(x.User>>16&0xffff), int(x.User&0xffff)
	s := &r.list[i]
	switch x.User >> 32 {
	case durableAlloc:
		s.m, s.sent = x.Mblock, 0
	case durableWrite:
		if x.N != seqSize {
			return fmt.Errorf("%d bytes written, not %d", x.N, seqSize)
		}
		r.free = append(r.free, buf)
	case durableCommit:
		r.l.Add(time.Since(s.begun))
		if err := r.q.Release(s.m, durableUser(durableRelease, i, 0)); err != nil {
			return err
		}
		return r.alloc(i)
	}
	return nil
}
