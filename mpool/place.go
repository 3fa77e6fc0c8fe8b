package mpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// standing says how gladly an allocation takes a drive.
type standing uint8

const (
	standingGood   standing = iota
	standingStuck           // hangs just now
	standingFailed          // failed a write or flush: avoided while another can serve
)

// choice is a drive with what it is preferred by.
type choice struct {
	drive    *drive
	standing standing
	score    uint64 // the free share of what is for objects, over the operations under way
}

// choices returns a class's drives, the best first: by standing, then by the
// share that is free and how much is under way, then by slot.
//
// They are appended to list, which is empty or has other classes' drives.
func (p *Pool) choices(list []choice, c api.Class) []choice {
	first := len(list)
	now := p.sched.Now()
	for _, d := range p.drives {
		if api.Class(d.entry.Class) != c || d.dev == nil {
			continue
		}
		u := d.zones.Usage()
		x := choice{drive: d, score: uint64(u.Free) << 32 / uint64(u.Total-u.Overhead) / uint64(1+max(0, d.dev.InFlight()))}
		switch {
		case d.failed():
			x.standing = standingFailed
		case d.stuck(now):
			x.standing = standingStuck
		}
		list = append(list, x)
	}
	slices.SortStableFunc(list[first:], func(a, b choice) int {
		return cmp.Or(cmp.Compare(a.standing, b.standing), cmp.Compare(b.score, a.score))
	})
	return list
}

// place takes n runs for so many blocks each, on one drive. While zones of a
// drive that has not failed are on their way to being free it waits for them
// rather than saying that there are none, also if that drive hangs just now; who
// must not wait gets ErrWouldBlock.
func (p *Pool) place(ctx context.Context, op string, o api.AllocOptions, blocks uint32, n int, wait bool) (*drive, []space.Run, error) {
	var few [4]choice
	for {
		was := p.freed.count()
		list := p.choices(few[:0], o.Class)
		if o.Fallback {
			list = p.choices(list, otherClass(o.Class))
		}
		if len(list) == 0 {
			return nil, nil, api.Errorf(api.ENOENT, op, "the pool has no drive of class %v", o.Class)
		}
		d, runs, soon := choose(list, false, blocks, n, o.UseSpare)
		if d == nil && !soon {
			d, runs, soon = choose(list, true, blocks, n, o.UseSpare)
		}
		switch {
		case d != nil:
			return d, runs, nil
		case !soon:
			return nil, nil, p.noSpace(op, api.Class(list[0].drive.entry.Class), blocks, n)
		case !wait:
			return nil, nil, ErrWouldBlock
		}
		if err := p.freed.wait(ctx, was); err != nil {
			if errors.Is(err, errDeactivated) {
				return nil, nil, err
			}
			return nil, nil, api.ContextError(op, err)
		}
	}
}

func otherClass(c api.Class) api.Class {
	if c == api.ClassStaging {
		return api.ClassCapacity
	}
	return api.ClassStaging
}

// choose takes runs on the first drive that has them, among those that failed
// or those that did not. soon: one may have them when its zones are drained.
func choose(list []choice, failed bool, blocks uint32, n int, spare bool) (d *drive, runs []space.Run, soon bool) {
	for _, x := range list {
		if (x.standing == standingFailed) != failed {
			continue
		}
		d := x.drive
		zones := d.geo.zonesFor(blocks)
		if runs := d.take(zones, n, spare); runs != nil {
			return d, runs, false
		}
		u := d.zones.Usage()
		most := uint64(u.Free) + uint64(u.Draining)
		if spare {
			most += uint64(u.Spare)
		}
		soon = soon || u.Draining > 0 && most >= uint64(n)*uint64(zones)
	}
	return nil, nil, soon
}

// take takes n runs of so many zones each, or none.
func (d *drive) take(zones uint32, n int, spare bool) []space.Run {
	runs := make([]space.Run, 0, n)
	for range n {
		r, err := d.zones.Alloc(zones, spare)
		if err != nil {
			for _, r := range runs {
				d.zones.Return(r) // nobody is told: who waits may be the caller
			}
			return nil
		}
		runs = append(runs, r)
	}
	return runs
}

// unplace gives back a run to which nothing was written, and tells those who wait
// for space.
func (d *drive) unplace(r space.Run) {
	d.zones.Return(r)
	d.drain.freed.note()
}

// noSpace says how much is free of a class, and in which runs.
func (p *Pool) noSpace(op string, c api.Class, blocks uint32, n int) error {
	var free, longest, want int64
	var only *drive
	drives := 0
	for _, d := range p.drives {
		if api.Class(d.entry.Class) != c || d.dev == nil {
			continue
		}
		drives++
		only = d
		free += int64(d.zones.Usage().Free) * d.geo.zone
		longest = max(longest, int64(d.zones.Longest())*d.geo.zone)
		want = int64(d.geo.zonesFor(blocks)) * d.geo.zone
	}
	e := api.Errorf(api.ENOSPC, op, "no free run of %d bytes; %d bytes are free, the longest run has %d", want, free, longest)
	if n > 1 {
		e.Detail += "; both logs of a container need one on the same drive"
	}
	if drives == 1 {
		e.Device = only.path()
	} else {
		e.Detail += fmt.Sprintf(" (%d drives of class %v)", drives, c)
	}
	e.Want, e.Have, e.Longest = want*int64(n), free, longest
	return e
}

// releases tells those who wait for space that zones became free, on any drive.
type releases struct {
	mu   sched.Mutex
	cond sched.Cond
	// +checklocks:mu
	batches uint64
	// +checklocks:mu
	closed bool
}

func (r *releases) init(s *sched.Sched) {
	r.mu.Init(s, sched.RankSpace)
	r.cond.Init(s, &r.mu)
}

// count returns a number that changes when zones became free.
func (r *releases) count() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.batches
}

// note says that zones became free.
func (r *releases) note() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches++
	r.cond.Broadcast()
}

// errDeactivated ends waits in a pool that is being deactivated.
var errDeactivated = api.Errorf(api.EBADF, "pool", "the pool is deactivated")

// wait returns when the count is no longer what it was, or with the context's
// error.
func (r *releases) wait(ctx context.Context, was uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.batches == was {
		if r.closed {
			return errDeactivated
		}
		if err := r.cond.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close ends all waits.
func (r *releases) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.cond.Broadcast()
}
