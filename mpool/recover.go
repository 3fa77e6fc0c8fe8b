package mpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/space"
)

// recover rebuilds memory from the metadata drive.
func (p *Pool) recover(ctx context.Context) error {
	d := p.metaDrive().dev
	c := logConfigs(d, p.sb.Load(), p.opt)
	p.forget()
	number := uint64(0)
	mdc, err := mlog.OpenMDC(ctx, mlog.MDCConfig{
		A: c[0], B: c[1], Discover: true, OnDurable: p.meta.onDurable, OnFailure: p.meta.fail,
		Replay: func(record []byte) error {
			number++
			if err := omf.DecodeRecord(record, p.replayOp); err != nil {
				return &api.Error{
					Code: api.ECORRUPT, Op: opActivate, Device: d.Path(), Offset: c[0].Extent.Offset(),
					Detail: fmt.Sprintf("metadata record %d", number), Err: err,
				}
			}
			return nil
		},
		Expect: p.expect,
		Reset:  p.forget,
	})
	if err != nil {
		return err
	}
	p.meta.mdc = mdc
	dropped, err := p.dropUnflushed(ctx)
	if err == nil {
		err = p.claimZones()
	}
	if err != nil {
		return errors.Join(err, mdc.Abandon())
	}
	if err := p.deleteDropped(ctx, dropped); err != nil {
		p.fence.close()
		return errors.Join(err, p.meta.close(context.Background()))
	}
	p.meta.confirm(&p.fence.touched)
	return nil
}

// expectMost bounds the objects that memory is taken for because a log says so
// which is not yet read: 80 MiB.
const expectMost = 1 << 24

// expect makes the table large enough for so many bytes of records of objects
// of one block, but for no more objects than there are zones.
func (p *Pool) expect(bytes int64) {
	var zones int64
	for _, d := range p.drives {
		zones += int64(d.geo.zones)
	}
	p.table.Reserve(int(min(bytes/omf.CreateBytes(1), zones, expectMost)))
}

// forget empties what the metadata log is replayed into.
func (p *Pool) forget() {
	p.table = layout.NewTable(p.sched)
	p.names.init(p.sched)
	p.ids.init(p)
	p.props.Store(&properties{mode: 0o660, verify: true, shared: sharedUnset})
}

// replayOp applies one operation. Operations are upserts by id and birth stamp:
// what a compaction wrote and what went on meanwhile overlap.
func (p *Pool) replayOp(op *omf.Op) error {
	o := &op.Object
	switch op.Type {
	case omf.OpCreate:
		if p.byslot[o.Extent.Drive] == nil {
			return fmt.Errorf("object %v lies on drive %d, which the pool does not have", o.ID, o.Extent.Drive)
		}
		p.table.Upsert(*o)
	case omf.OpDelete:
		if now, ok := p.table.Lookup(o.ID); ok && now.Birth == o.Birth {
			p.table.Delete(o.ID)
		}
	case omf.OpErase, omf.OpUpdate, omf.OpRelocate:
		p.table.Update(o.ID, func(e *layout.Object) {
			if e.Birth != o.Birth {
				return
			}
			switch op.Type { //nolint:exhaustive // the three of this case
			case omf.OpErase:
				e.Generation = o.Generation
			case omf.OpUpdate:
				e.Owner, e.Tag = o.Owner, o.Tag
			default:
				e.Extent = o.Extent
			}
		})
	case omf.OpRoot:
		p.names.setRoots([]api.Root{{Name: op.Name, ID: o.ID}})
	case omf.OpOwner:
		if !p.names.addOwner(api.Owner{Index: op.Index, Parent: op.Parent, Name: op.Name}) {
			return fmt.Errorf("owner %d comes before its predecessors or its parent %d", op.Index, op.Parent)
		}
	case omf.OpProperty:
		props := *p.props.Load()
		props.replay(op)
		p.props.Store(&props)
	case omf.OpCounter:
		p.ids.replay(op.NextID, op.Birth)
	case omf.OpDrive: // history; the superblock's table is what counts
	}
	return nil
}

// claimZones builds the space maps from the table and counts what a compacted
// log would take.
func (p *Pool) claimZones() error {
	for _, d := range p.drives {
		d.zones = space.New(p.sched, d.geo.zones, p.props.Load().spare)
		if err := d.zones.Insert(space.Run{Start: 0, Count: d.geo.head}, space.Overhead); err != nil {
			return err
		}
		d.drain = newDrainer(p, d)
	}
	nextID, nextBirth := p.ids.limits()
	var live int64
	var bad error
	for cursor := uint64(0); bad == nil; {
		cursor = p.table.Scan(cursor, 1024, func(o layout.Object) {
			live += createBytes(&o)
			if bad == nil {
				bad = p.claim(&o, nextID, nextBirth)
			}
		})
		if cursor == 0 {
			break
		}
	}
	p.meta.mu.Lock()
	p.meta.live = live + p.names.live()
	p.meta.objects = int64(p.table.Len())
	p.meta.mu.Unlock()
	return bad
}

// claim takes an object's zones.
func (p *Pool) claim(o *layout.Object, nextID uint64, nextBirth layout.BirthStamp) error {
	d := p.byslot[o.Extent.Drive]
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
	case o.ID.Counter() >= nextID || o.Birth >= nextBirth:
		return corrupt("id or birth stamp %d is above the counters %d and %d", o.Birth, nextID, nextBirth)
	}
	if err := d.zones.Insert(d.run(o.Extent), space.Live); err != nil {
		return corrupt("its zones belong to another object: %v", err)
	}
	return nil
}
