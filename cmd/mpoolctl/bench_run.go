package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// benchTag is the tag of everything that a bench makes.
const benchTag = 0x6d706f6f6c626e63 // "mpoolbnc"

// bench measures cases in one pool.
type bench struct {
	a *app
	d daemon
	p api.Pool
	o *benchOptions
}

// measure runs one case, deletes what it has made, and prints what it measured.
func (b *bench) measure(ctx context.Context, c benchCase) error {
	work := map[string]func(*bench, context.Context, benchCase) (benchView, error){
		"read": (*bench).read, "write": (*bench).write, "append": (*bench).append, "commit": (*bench).commit,
	}[c.work]
	v, err := work(b, ctx, c)
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeoutForCleanup)
	defer cancel()
	if cleanErr := b.cleanUp(cleanup); cleanErr != nil {
		b.a.warn("bench: what it had made could not be deleted: %v", cleanErr)
		b.a.warn("bench: the next run does it, or see mpoolctl mblock list --tag %d, mpoolctl mlog list --tag %d", uint64(benchTag), uint64(benchTag))
		err = errors.Join(err, cleanErr)
	}
	if err != nil {
		return err
	}
	return b.a.print(v)
}

// deleters is how many goroutines delete at once.
const deleters = 32

// cleanUp deletes everything that has the bench's tag and that nobody uses.
func (b *bench) cleanUp(ctx context.Context) error {
	tag := uint64(benchTag)
	ids := make(chan layout.ObjectID)
	errs := make([]error, deleters)
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			for id := range ids {
				errs[i] = errors.Join(errs[i], b.remove(ctx, id))
			}
		})
	}
	var err error
	for o, listErr := range b.p.Objects(ctx, api.Filter{Tag: &tag, State: api.StateCommitted}) {
		if err = listErr; err != nil {
			break
		}
		ids <- o.ID
	}
	close(ids)
	workers.Wait()
	return errors.Join(err, errors.Join(errs...))
}

// remove deletes an object, unless another run has it, or has deleted it.
func (b *bench) remove(ctx context.Context, id layout.ObjectID) error {
	open := openMblock
	if id.Kind() == layout.KindMlog {
		open = openMlog
	}
	_, err := deleteObject(ctx, b.p, id.String(), open)
	switch api.CodeOf(err) { //nolint:exhaustive // all others are failures
	case api.ENOENT, api.EBUSY, api.EPERM:
		return nil
	}
	return err
}

// budget returns how much of the pool a case may use, in bytes: what is asked
// for or, if nothing is, at most most of a share of what is free. It fails if
// that is less than least.
func (b *bench) budget(ctx context.Context, least, most int64) (budget, zone int64, err error) {
	info, err := b.p.Info(ctx)
	if err != nil {
		return 0, 0, err
	}
	const share = 4
	budget = min(most, info.Space.Free/share)
	if b.o.data != 0 {
		budget = int64(b.o.data)
	}
	var refused string
	switch {
	case budget > info.Space.Free:
		refused = "--data is " + formatSize(budget) + ", and the pool has " + formatSize(info.Space.Free) + " free"
	case budget < least && b.o.data != 0:
		refused = "it takes " + formatSize(least) + ", and --data is " + formatSize(budget)
	case budget < least:
		refused = "it takes " + formatSize(least) + ", and uses a quarter of the " + formatSize(info.Space.Free) +
			" that are free: allow more with --data, or less with --size and --depth"
	default:
		return budget, info.ZoneSize, nil
	}
	return 0, 0, &api.Error{Code: api.ENOSPC, Want: max(least, budget), Have: info.Space.Free, Longest: info.Space.Free, Detail: refused}
}

// errBenchEnd ends a run before its time, without failing it: there is no more
// room.
var errBenchEnd = errors.New("no more room")

// repeat calls op from so many goroutines at once, again and again, with the
// goroutine's number, until the time is over, op fails or the context ends.
func (b *bench) repeat(ctx context.Context, c benchCase, op func(worker int) error) (benchView, error) {
	all := make([]latencies, c.depth)
	errs := make([]error, c.depth)
	var stopped atomic.Bool
	var workers sync.WaitGroup
	clock := b.start(ctx)
	end := clock.at.Add(b.o.time)
	for w := range c.depth {
		workers.Go(func() {
			for at := clock.at; at.Before(end) && !stopped.Load(); {
				if errs[w] = context.Cause(ctx); errs[w] == nil {
					errs[w] = op(w)
				}
				if errs[w] != nil {
					stopped.Store(true)
					return
				}
				now := time.Now()
				all[w].add(now.Sub(at))
				at = now
			}
		})
	}
	workers.Wait()
	v := clock.stop()
	var sum latencies
	for i := range all {
		sum.merge(&all[i])
	}
	v = b.describe(v, c).counted(&sum)
	for _, err := range errs {
		if errors.Is(err, errBenchEnd) {
			v.Ended = errBenchEnd.Error()
		} else if err != nil {
			return v, err
		}
	}
	return v, nil
}

// describe fills in what a case was.
func (b *bench) describe(v benchView, c benchCase) benchView {
	v.Row, v.Work, v.SizeBytes, v.Depth, v.Sequential = c.row, c.work, c.size, c.depth, c.sequential
	v.Mode, v.ZeroCopy = "blocking", b.o.zeroCopy || b.o.async
	if b.o.async {
		v.Mode = "async"
	}
	return v
}
