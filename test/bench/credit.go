package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// creditBatch is how many operations are between two looks at the clock.
const creditBatch = 100

// creditReaders is how many owners have a credit cached that one calls back.
const creditReaders = 1000

// The most that it may take, in microseconds: to acquire and release what is cached;
// and to call back all readers, each time.
const (
	creditMicroseconds = 2
	revokeMicroseconds = 100_000
)

// slowest is about the longest that an operation took.
var slowest = metric{"µs/op, p99.9", func(r *measure.Result) float64 { return r.P999US }}

// credit measures credits in one process: there is nobody to compare with.
func (b *bench) credit(ctx context.Context) error {
	all, err := b.alternate(ctx, b.worker("credit", "credit", "-time", b.time.String(), "-flight", "1"))
	if err != nil {
		return err
	}
	const name = "acquire and release, cached"
	b.report(name, opsPerSecond, all[0], nil, ratioAtLeast, 0, 0)
	b.report(name, perCall, all[0], nil, valueAtMost, creditMicroseconds, 0)
	b.report(name, allocations, all[0], nil, valueAtMost, 0, 0)
	if all, err = b.alternate(ctx, b.worker("credit", "credit-revoke", "-time", b.time.String())); err != nil {
		return err
	}
	revoke := fmt.Sprintf("a writer calls back %d cached readers", creditReaders)
	b.report(revoke, perCall, all[0], nil, valueAtMost, revokeMicroseconds, 0)
	b.report(revoke, slowest, all[0], nil, valueAtMost, 0, 0)
	return b.creditThrough(ctx)
}

// creditThrough measures a client's credits, which the daemon lends to it.
func (b *bench) creditThrough(ctx context.Context) error {
	if _, err := b.work(ctx, "read-fill", "-dev", b.fast, "-size", strconv.Itoa(creditFill)); err != nil {
		return err
	}
	for _, c := range []struct {
		name, kind string
		must       float64
	}{
		{"acquire and release, cached", creditCached, creditMicroseconds},
		{"acquire, release and give back", creditGiven, creditDaemonMicroseconds},
		{"open and close for reading, cached", creditOpens, 0},
	} {
		all, err := b.alternate(ctx, b.client("credit", "client-credit", "-dev", b.fast, "-time", b.time.String(), "-kind", c.kind))
		if err != nil {
			return err
		}
		b.report(c.name, perCall, all[0], nil, valueAtMost, c.must, 0)
		messages := 0.0
		if c.kind != creditGiven {
			messages = noAllocation
		}
		b.report(c.name, creditMessages, all[0], nil, valueAtMost, messages, 0)
	}
	return b.creditFloor(ctx)
}

// creditFloor measures credits of which the daemon is asked beside what it costs at
// least to be answered by another process, alternating: the credits of one object, given
// back each time, and of many, by several goroutines, each of one after the other.
func (b *bench) creditFloor(ctx context.Context) error {
	plan := []string{"-dev", b.fast, "-time", b.time.String()}
	given := append(plan, "-kind", creditGiven)
	all, err := b.alternate(ctx,
		b.client("credit", "client-credit", given...),
		b.worker("bare answer, socket", "floor", "-time", b.time.String(), "-kind", floorSocket),
		b.worker("bare answer, futex", "floor", "-time", b.time.String(), "-kind", floorFutex),
		b.client("credit", "client-credit", append(given, "-flight", "8")...),
		b.client("credit", "client-credit", append(given, "-flight", "64")...))
	if err != nil {
		return err
	}
	const name = "acquire, release and give back"
	b.report(name, perCall, all[0], all[1], aboveAtMost, 0, 0)
	b.report(name, perCall, all[0], all[2], aboveAtMost, 0, 0)
	b.report(name, median, all[0], all[1], aboveAtMost, 0, 0)
	b.report(name, median, all[0], all[2], aboveAtMost, 0, 0)
	b.report(name+", 8 at once", perCall, all[3], nil, valueAtMost, creditDaemonMicroseconds, 0)
	b.report(name+", 64 at once", perCall, all[4], nil, valueAtMost, creditDaemonMicroseconds, 0)
	return nil
}

// The variants of a client's credits.
const (
	creditCached = "cached" // it keeps what it has released
	creditGiven  = "given"  // it gives it back at once, and asks the daemon each time
	creditOpens  = "opens"  // a committed mblock is opened and closed
)

// creditFill is how many bytes of mblocks are there beside those that are used.
const creditFill = 256 << 20

// creditDaemonMicroseconds is the most that it may take when the daemon is asked.
const creditDaemonMicroseconds = 20

// creditMessages is how many messages a client sends to the daemon for its credits.
var creditMessages = extra("messages", "messages/op")

// clientCreditWork uses credits through the daemon, each worker of one object.
func clientCreditWork(ctx context.Context, o *options) (*measure.Result, error) {
	o.credits = &client.CreditOptions{}
	c, err := o.activateThrough(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]layout.ObjectID, o.plan.Workers)
	for w := range ids {
		m, err := c.pool.PutMblock(ctx, api.AllocOptions{}, noise(smallSize))
		if err != nil {
			return nil, err
		}
		ids[w] = m.ID()
		if err := m.Put(); err != nil {
			return nil, err
		}
	}
	op := c.creditOp(ctx)
	for _, id := range ids {
		if err := op(id); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before := c.CreditStats().Messages
	r, err := measure.Run(o.plan, func(w int) error { return op(ids[w]) })
	if err != nil {
		return nil, err
	}
	sent := c.CreditStats().Messages - before
	r.Extra = map[string]float64{"messages": float64(sent) / float64(max(r.Ops, 1))}
	return r, c.finish(r)
}

// creditOp is one use of an object's credit.
func (c *connection) creditOp(ctx context.Context) func(layout.ObjectID) error {
	credits := c.pool.(client.Credits)
	one := func(id layout.ObjectID) error {
		h, err := credits.AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditRead})
		if err != nil {
			return err
		}
		return h.Release()
	}
	switch c.o.kind {
	case creditGiven:
		return func(id layout.ObjectID) error {
			err := one(id)
			credits.GiveBackCredit(id)
			return err
		}
	case creditOpens:
		return func(id layout.ObjectID) error {
			m, err := c.pool.Mblock(ctx, id)
			if err != nil {
				return err
			}
			return m.Put()
		}
	}
	return one
}

// creditOwners opens a root and n debtors of it. The function ends them.
func creditOwners(n int) (root *credit.Owner, debtors []*credit.Owner, end func(), err error) {
	var all []*credit.Owner
	end = func() {
		for _, o := range all {
			o.Abandon()
		}
	}
	for i := range credit.OwnerID(n + 1) {
		var e credit.Engine
		if i > 0 {
			e = credit.NewLocal(all[0])
		}
		o, err := credit.Open(credit.Options{Config: credit.Config{ID: 1 + i}}, e)
		if err != nil {
			end()
			return nil, nil, nil, err
		}
		all = append(all, o)
	}
	return all[0], all[1:], end, nil
}

// useCredit acquires a credit of an object's first MiB and releases it.
func useCredit(ctx context.Context, o *credit.Owner, m credit.Modes) error {
	h, err := o.Acquire(ctx, credit.Request{
		Resource: credit.Resource{Type: credit.Access, ID: 42},
		Credit:   credit.Make(credit.Span{First: 0, End: 1 << 20, Modes: m}),
		Flags:    credit.MayBorrow | credit.MayRevoke,
	})
	if err != nil {
		return err
	}
	return h.Release(credit.Version{})
}

// creditWork acquires and releases what is cached, each worker as an owner of its own.
func creditWork(ctx context.Context, o *options) (*measure.Result, error) {
	_, debtors, end, err := creditOwners(o.plan.Workers)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := o.measured(); err != nil {
		return nil, err
	}
	return measure.RunShort(o.plan, creditBatch, func(w int) error {
		for range creditBatch {
			if err := useCredit(ctx, debtors[w], credit.Read); err != nil {
				return err
			}
		}
		return nil
	})
}

// creditRevokeWork calls back what many owners have cached; only that is counted, not
// that they acquire it anew.
func creditRevokeWork(ctx context.Context, o *options) (*measure.Result, error) {
	root, readers, end, err := creditOwners(creditReaders)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := o.measured(); err != nil {
		return nil, err
	}
	var took time.Duration
	var each measure.Latencies
	clock := measure.Start()
	for begin := time.Now(); time.Since(begin) < o.plan.Time; {
		for _, r := range readers {
			if err := useCredit(ctx, r, credit.Read); err != nil {
				return nil, err
			}
		}
		start := time.Now()
		if err := useCredit(ctx, root, credit.Write); err != nil {
			return nil, err
		}
		d := time.Since(start)
		took += d
		each.Add(d)
	}
	r := clock.Stop()
	r.Latencies(each)
	r.Seconds, r.CPUUS = took.Seconds(), 0
	return r, nil
}
