package mpool

import (
	"fmt"
	"math/bits"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/space"
)

// claims are the zones of one drive that objects take, as they are found in the
// table: in any order. A space map takes them best as long runs, in order.
type claims struct {
	zones  uint32
	chunks []*[claimChunk / 64]uint64 // bits; nil: none
}

// claimChunk is how many zones one chunk has.
const claimChunk = 1 << 15

func newClaims(zones uint32) *claims {
	return &claims{zones: zones, chunks: make([]*[claimChunk / 64]uint64, (uint64(zones)+claimChunk-1)/claimChunk)}
}

// take takes a run's zones, which the drive has. It returns false, and one of
// them, if that is taken already.
func (c *claims) take(r space.Run) (taken uint32, ok bool) {
	for z, left := r.Start, r.Count; left > 0; {
		chunk := &c.chunks[z/claimChunk]
		if *chunk == nil {
			*chunk = new([claimChunk / 64]uint64)
		}
		word := &(*chunk)[z%claimChunk/64]
		n := min(64-z%64, left)
		mask := (^uint64(0) >> (64 - n)) << (z % 64)
		if *word&mask != 0 {
			return z/64*64 + uint32(bits.TrailingZeros64(*word&mask)), false
		}
		*word |= mask
		z, left = z+n, left-n
	}
	return 0, true
}

// runs calls f with the runs that were taken, as long as they are, in order.
func (c *claims) runs(f func(space.Run) error) error {
	var run space.Run
	add := func(start, count uint32) error {
		if run.Count > 0 && run.Start+run.Count == start {
			run.Count += count
			return nil
		}
		last := run
		run = space.Run{Start: start, Count: count}
		if last.Count == 0 {
			return nil
		}
		return f(last)
	}
	for i, chunk := range c.chunks {
		if chunk == nil {
			continue
		}
		for j, word := range chunk {
			base := uint32(i)*claimChunk + uint32(j)*64
			for word != 0 {
				at := bits.TrailingZeros64(word)
				n := bits.TrailingZeros64(^(word >> at))
				if err := add(base+uint32(at), uint32(n)); err != nil {
					return err
				}
				if at+n == 64 {
					break
				}
				word = word >> (at + n) << (at + n)
			}
		}
	}
	if run.Count == 0 {
		return nil
	}
	return f(run)
}

// claimZones builds the space maps from the table and counts what a compacted
// log would take.
func (p *Pool) claimZones() error {
	taken := make(map[*drive]*claims, len(p.drives))
	for _, d := range p.drives {
		d.zones = space.New(p.sched, d.geo.zones, p.props.Load().spare)
		d.drain = newDrainer(p, d)
		taken[d] = newClaims(d.geo.zones)
		if err := d.zones.Insert(space.Run{Start: 0, Count: d.geo.head}, space.Overhead); err != nil {
			return err
		}
	}
	p.holdings.init(p.sched, p.names.owners())
	nextID, nextBirth := p.ids.limits()
	var live int64
	var bad error
	for cursor := uint64(0); bad == nil; {
		cursor = p.table.Scan(cursor, 1024, func(o layout.Object) {
			live += createBytes(&o)
			if bad == nil {
				bad = p.claim(&o, taken, nextID, nextBirth)
			}
		})
		if cursor == 0 {
			break
		}
	}
	for _, d := range p.drives {
		if bad == nil {
			bad = taken[d].runs(func(r space.Run) error { return d.zones.Insert(r, space.Live) })
		}
	}
	p.meta.mu.Lock()
	p.meta.live = live + p.names.live()
	p.meta.ends = int64(p.table.Len())*deleteCost() + p.names.ends()
	p.meta.mu.Unlock()
	return bad
}

// claim counts an object for its owner and takes its zones.
func (p *Pool) claim(o *layout.Object, taken map[*drive]*claims, nextID uint64, nextBirth layout.BirthStamp) error {
	d := p.byslot[o.Extent.Drive]
	if !p.names.ownerExists(o.Owner) {
		return &api.Error{Code: api.ECORRUPT, Op: opActivate, Object: o.ID, Detail: fmt.Sprintf("its owner %d is not there", o.Owner)}
	}
	p.holdings.hold(o.Owner, d.holdingOf(o.ID.Kind(), d.run(o.Extent).Count), 1)
	return d.claim(o, taken[d], nextID, nextBirth)
}

// claim takes an object's zones.
func (d *drive) claim(o *layout.Object, taken *claims, nextID uint64, nextBirth layout.BirthStamp) error {
	zb := uint64(d.geo.zoneBlocks())
	corrupt := func(format string, args ...any) error {
		return &api.Error{
			Code: api.ECORRUPT, Op: opActivate, Object: o.ID, Device: d.path(),
			Offset: o.Extent.Offset(), Detail: fmt.Sprintf(format, args...),
		}
	}
	switch {
	case o.Extent.Start%zb != 0 || uint64(o.Extent.Blocks)%zb != 0 || o.Extent.End() > uint64(d.geo.zones)*zb:
		return corrupt("an extent of %d blocks at block %d is no run of zones", o.Extent.Blocks, o.Extent.Start)
	case o.Extent.Start < uint64(d.geo.head)*zb:
		return corrupt("an extent of %d blocks at block %d lies in the drive's head", o.Extent.Blocks, o.Extent.Start)
	case o.ID.Counter() >= nextID || o.Birth >= nextBirth:
		return corrupt("id or birth stamp %d is above the counters %d and %d", o.Birth, nextID, nextBirth)
	}
	if zone, ok := taken.take(d.run(o.Extent)); !ok {
		return corrupt("zone %d, which it has, belongs to another object", zone)
	}
	return nil
}
