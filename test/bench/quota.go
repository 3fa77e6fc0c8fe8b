package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// quotaRecord is the size of the records beside which claims are measured: a claim's is
// about so large.
const quotaRecord = 128

// quotaCapacity is the size of the quotas' logs, as in a pool of 16 GiB.
const quotaCapacity = 16 << 20

// quotaBatch is how many operations in memory are between two looks at the clock.
const quotaBatch = 100

// quotaMicroseconds is the most that a claim and its release in memory may take: a
// million a second.
const quotaMicroseconds = 1

// perCall is how long one worker takes for an operation.
var perCall = metric{"µs/op", func(r *measure.Result) float64 { return r.Seconds / float64(max(r.Ops, 1)) * 1e6 }}

// quota compares claims that are released with half of the durable appends: each is two.
func (b *bench) quota(ctx context.Context) error {
	for _, n := range []int{1, 16} {
		plan := []string{"-time", b.time.String(), "-flight", strconv.Itoa(n), "-dev", b.disk}
		all, err := b.alternate(ctx, b.worker("quota", "quota", plan...),
			half(b.worker("half of mlog-sync", "mlog", append(plan, "-size", strconv.Itoa(quotaRecord))...)))
		if err != nil {
			return err
		}
		name := fmt.Sprintf("disk, claim and release, %d claimants on one owner", n)
		b.report(name, opsPerSecond, all[0], all[1], ratioAtLeast, 0.8, 0)
	}
	if err := b.quotaOfCommits(ctx); err != nil {
		return err
	}
	all, err := b.alternate(ctx, b.worker("quota", "quota-memory", "-time", b.time.String(), "-flight", "1"))
	if err != nil {
		return err
	}
	const name = "in memory, claim and release, 1 claimant"
	b.report(name, opsPerSecond, all[0], nil, ratioAtLeast, 0, 0)
	b.report(name, perCall, all[0], nil, valueAtMost, quotaMicroseconds, 0)
	b.report(name, allocations, all[0], nil, valueAtMost, 0, 0)
	return nil
}

// quotaOfCommits compares small mblocks of an owner who has limits, and one with limits
// above, with those of one who has none.
func (b *bench) quotaOfCommits(ctx context.Context) error {
	ops := 30000
	if b.quick {
		ops /= 10
	}
	plan := []string{"-ops", strconv.Itoa(ops), "-flight", "16", "-dev", b.fast}
	all, err := b.alternate(ctx,
		b.client("limits", "client-commit", append(plan, "-kind", "limited")...),
		b.client("no limits", "client-commit", append(plan, "-kind", "owned")...))
	if err != nil {
		return err
	}
	b.report("fast, mblocks of 4 KiB of an owner with limits, 16 in flight", cpuPerOp, all[0], all[1], ratioAtMost, 1.03, 0)
	return nil
}

// tenant makes an owner below another one, both with limits or without, and returns its
// index.
func tenant(ctx context.Context, p api.Pool, limited bool) (uint32, error) {
	q, ok := p.(api.Quotas)
	if !ok {
		return 0, errors.New("the pool has no quotas")
	}
	path, err := q.AddQuotaOwner(ctx, "project", "team")
	for _, owner := range []string{"team", path} {
		for _, class := range []string{"mpool.bytes.capacity", "mpool.bytes.staging", "mpool.mblocks", "mpool.mlogs"} {
			if err == nil && limited {
				err = q.SetQuotaLimit(ctx, api.QuotaLimit{Owner: owner, Class: class, Limit: 1 << 50})
			}
		}
	}
	if err != nil {
		return 0, err
	}
	list, err := p.Owners(ctx)
	for _, o := range list {
		if o.Name == "project" {
			return o.Index, err
		}
	}
	return 0, errors.Join(err, errors.New("no owner"))
}

// half returns a side of which two operations count as one.
func half(s side) side {
	run := s.run
	s.run = func(ctx context.Context, turn int) (*measure.Result, error) {
		r, err := run(ctx, turn)
		if err == nil {
			r.Ops /= 2
			r.P50US, r.P99US, r.P999US = 0, 0, 0 // of one of them
		}
		return r, err
	}
	return s
}

// quotaWork claims and releases in a pool: each of them is durable when it returns.
func quotaWork(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	mdc, err := p.SystemContainer(ctx, ".quota", quotaCapacity)
	if err != nil {
		return nil, err
	}
	st, err := embedded.Open(ctx, mdc, embedded.Options{})
	if err != nil {
		return nil, err
	}
	one, err := claimRelease(ctx, st)
	if err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before := p.DriveStats()[o.dev]
	r, err := measure.Run(o.plan, func(int) error { return one() })
	if err != nil {
		return nil, err
	}
	r.Extra = perOperation(before, p.DriveStats()[o.dev], r.Ops)
	return r, errors.Join(st.Verify(), st.Close(ctx), p.Close())
}

// quotaMemoryWork claims and releases in memory.
func quotaMemoryWork(ctx context.Context, o *options) (*measure.Result, error) {
	one, err := claimRelease(ctx, quota.NewMemory())
	if err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	return measure.RunShort(o.plan, quotaBatch, func(int) error {
		for range quotaBatch {
			if err := one(); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimRelease returns a claim that is released. All are of one class and one owner,
// who both have limits.
func claimRelease(ctx context.Context, st quota.Store) (func() error, error) {
	l := quota.New(st, quota.Options{})
	c := quota.NewClass("instances", quota.Count)
	c.Total = 1 << 20
	if err := l.Define(ctx, c); err != nil {
		return nil, err
	}
	if err := l.AddOwner(ctx, quota.Owner{Name: "amrith"}); err != nil {
		return nil, err
	}
	if err := l.SetLimit(ctx, quota.OwnerLimit{Owner: "amrith", Class: "instances", Limit: 1 << 10}); err != nil {
		return nil, err
	}
	amounts := []quota.Amount{{Class: "instances", N: 1}}
	return func() error {
		c, err := l.Reserve(ctx, quota.Ask{Owner: "amrith", Amounts: amounts})
		if err != nil {
			return err
		}
		_, err = l.Release(ctx, quota.ByID(c.ID), "")
		return err
	}, nil
}
