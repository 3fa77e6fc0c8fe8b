package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// churn replaces objects of a pool that is half full and of one that is nearly
// full, and compares the two.
func (b *bench) churn(ctx context.Context) error {
	ops := int64(1_000_000)
	if b.quick {
		ops = 10_000
	}
	devs := []struct{ path, percent string }{{b.fast, "50"}, {b.fast2, "90"}}
	var sides []side
	for _, d := range devs {
		if _, err := b.work(ctx, "churn-fill", "-dev", d.path, "-percent", d.percent, "-flight", "64"); err != nil {
			return err
		}
		sides = append(sides, b.worker(d.percent+" % full", "churn", "-dev", d.path, "-flight", "16",
			"-ops", strconv.FormatInt(ops/int64(b.turns), 10)))
	}
	all, err := b.alternate(ctx, sides...)
	if err != nil {
		return err
	}
	b.report("fast, 90 % full", opsPerSecond, all[1], all[0], ratioAtLeast, 0.9, 0)
	b.report("fast, bytes not accounted for", extra("lost", "bytes"), all[1], nil, valueAtMost, 0, 0)
	for _, s := range all {
		for _, r := range s.Runs {
			if r.Extra["lost"] != 0 {
				return fmt.Errorf("%.0f bytes of space are not accounted for", r.Extra["lost"])
			}
		}
	}
	return nil
}

// churnFill makes a pool that is o.percent full of small mblocks.
func churnFill(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	info, err := p.Info(ctx)
	if err != nil {
		return nil, err
	}
	o.plan.Ops = info.Space.Free / info.ZoneSize * int64(o.percent) / 100
	data := noise(smallSize)
	r, err := measure.Run(o.plan, func(int) error { return storeMblock(ctx, p, data) })
	if err != nil {
		return nil, err
	}
	return r, p.Close()
}

// churnWork deletes a committed object and stores another, o.plan.Ops times.
func churnWork(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.activate(ctx)
	if err != nil {
		return nil, err
	}
	// Each worker has objects of its own.
	own := make([][]layout.ObjectID, o.plan.Workers)
	n := 0
	for id, err := range committed(ctx, p) {
		if err != nil {
			return nil, err
		}
		own[n%len(own)] = append(own[n%len(own)], id)
		n++
	}
	data := noise(smallSize)
	if err := o.measured(); err != nil {
		return nil, err
	}
	r, err := measure.Run(o.plan, func(w int) error {
		i := rand.IntN(len(own[w]))
		id, err := replace(ctx, p, own[w][i], data)
		own[w][i] = id
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	// What is not accounted for shows after activation, when nothing drains.
	if p, err = o.activate(ctx); err != nil {
		return nil, err
	}
	lost, err := unaccounted(ctx, p, int64(n))
	if err != nil {
		return nil, err
	}
	r.Extra = map[string]float64{"lost": lost}
	return r, p.Close()
}

// replace deletes an mblock and stores another.
func replace(ctx context.Context, p api.Pool, id layout.ObjectID, data []byte) (layout.ObjectID, error) {
	old, err := p.Mblock(ctx, id)
	if err != nil {
		return id, err
	}
	if err := old.Delete(ctx); err != nil {
		return id, errors.Join(err, old.Put())
	}
	m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
	if err != nil {
		return id, err
	}
	if _, err := m.Write(ctx, data); err != nil {
		return id, err
	}
	if err := m.Commit(ctx); err != nil {
		return id, err
	}
	return m.ID(), m.Put()
}

// unaccounted returns how many bytes of the pool are nowhere, or in the wrong
// place, when it has so many objects of one zone and nothing else.
func unaccounted(ctx context.Context, p *mpool.Pool, objects int64) (float64, error) {
	info, err := p.Info(ctx)
	if err != nil {
		return 0, err
	}
	s := info.Space
	sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder
	lost := abs(s.Total-sum) + abs(s.Live-objects*info.ZoneSize) + s.Uncommitted + s.Draining
	return float64(lost), nil
}

func abs(v int64) int64 { return max(v, -v) }
