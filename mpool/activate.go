package mpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

const opActivate = "pool activate"

// Activate finds a pool by name or UUID on the given devices (none: on all
// block devices of the host), recovers it from them alone and returns it.
// Errors: see api.Manager.ActivatePool.
func Activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions, opt Options) (*Pool, error) {
	opt = opt.withDefaults()
	if len(devices) == 0 {
		var err error
		if devices, err = blockDevices(); err != nil {
			return nil, err
		}
	}
	d, sb, err := findPool(ctx, nameOrUUID, devices, opt)
	if err != nil {
		return nil, err
	}
	p, err := activate(ctx, d, sb, o, opt)
	if err != nil {
		return nil, errors.Join(ioError(opActivate, d, err), closeDrive(opt.Sched, d))
	}
	return p, nil
}

// findPool opens the drive of the pool that is asked for.
func findPool(ctx context.Context, nameOrUUID string, devices []string, opt Options) (*bdev.Drive, *omf.Superblock, error) {
	var found *bdev.Drive
	var foundSB *omf.Superblock
	var reason error
	for _, path := range devices {
		d, sb, err := openMember(ctx, nameOrUUID, path, opt)
		switch {
		case err != nil:
			if reason == nil || api.CodeOf(reason) == api.ENOENT {
				reason = err
			}
		case found != nil:
			err := &api.Error{
				Code: api.ESTATE, Op: opActivate, Device: path,
				Detail: fmt.Sprintf("%s carries the same pool or another of the same name; name the device", found.Path()),
			}
			return nil, nil, errors.Join(err, closeDrive(opt.Sched, d), closeDrive(opt.Sched, found))
		default:
			found, foundSB = d, sb
		}
	}
	if found != nil {
		return found, foundSB, nil
	}
	if reason == nil || len(devices) > 1 && api.CodeOf(reason) == api.ENOENT {
		reason = api.Errorf(api.ENOENT, opActivate, "no pool %q on the %d devices that were looked at", nameOrUUID, len(devices))
	}
	return nil, nil, reason
}

// openMember opens a device if it belongs to the pool. It looks first without
// claiming the device, so that others' devices are left alone.
func openMember(ctx context.Context, nameOrUUID, path string, opt Options) (*bdev.Drive, *omf.Superblock, error) {
	d, _, err := openAs(ctx, nameOrUUID, path, true, opt)
	if err != nil {
		return nil, nil, err
	}
	if err := closeIdle(d); err != nil {
		return nil, nil, ioError(opActivate, d, err)
	}
	d, sb, err := openAs(ctx, nameOrUUID, path, false, opt)
	if err != nil {
		return nil, nil, err
	}
	if err := finishDestroy(ctx, d, sb); err != nil {
		return nil, nil, errors.Join(err, closeDrive(opt.Sched, d))
	}
	return d, sb, nil
}

func openAs(ctx context.Context, nameOrUUID, path string, readOnly bool, opt Options) (*bdev.Drive, *omf.Superblock, error) {
	d, err := opt.Open(ctx, path, readOnly)
	if err != nil {
		return nil, nil, openError(opActivate, path, err)
	}
	sb, err := member(ctx, nameOrUUID, d)
	if err != nil {
		return nil, nil, errors.Join(err, closeDrive(opt.Sched, d))
	}
	return d, sb, nil
}

// finishDestroy wipes what a crash between a destruction and its wiping left.
func finishDestroy(ctx context.Context, d *bdev.Drive, sb *omf.Superblock) error {
	if sb.State != omf.StateDestroyed {
		return nil
	}
	if err := wipeSuperblocks(ctx, d, ownDrive(sb).EndCopy); err != nil {
		return ioError(opActivate, d, err)
	}
	return &api.Error{Code: api.ENOENT, Op: opActivate, Device: d.Path(), Detail: "the pool was destroyed"}
}

func member(ctx context.Context, nameOrUUID string, d *bdev.Drive) (*omf.Superblock, error) {
	s, err := readSuperblocks(ctx, d)
	if err != nil {
		return nil, ioError(opActivate, d, err)
	}
	sb := s.newest
	if sb == nil {
		return nil, superblockError(opActivate, d.Path(), s.err)
	}
	if sb.Name != nameOrUUID && sb.Pool.String() != nameOrUUID {
		return nil, &api.Error{
			Code: api.ENOENT, Op: opActivate, Device: d.Path(),
			Detail: fmt.Sprintf("the device belongs to pool %q, not %q", sb.Name, nameOrUUID),
		}
	}
	if sb.ROCompat&^omf.KnownROCompat != 0 {
		return nil, &api.Error{
			Code: api.ENOTSUP, Op: opActivate, Device: d.Path(),
			Detail: fmt.Sprintf("the pool has features %#x that this version could only read", sb.ROCompat&^omf.KnownROCompat),
		}
	}
	return sb, nil
}

// activate recovers the pool on its one drive.
func activate(ctx context.Context, d *bdev.Drive, sb *omf.Superblock, o api.ActivateOptions, opt Options) (*Pool, error) {
	if len(sb.Drives) != 1 {
		return nil, api.Errorf(api.ENOTSUP, opActivate, "the pool has %d drives; this version activates pools of one", len(sb.Drives))
	}
	next := *sb
	next.Drives = append([]omf.Drive(nil), sb.Drives...)
	old := next.Drives[0]
	if err := fit(&next, d, o.Resize); err != nil {
		return nil, err
	}
	next.Generation++
	next.Epoch++
	// This also flushes what a process that died left in the drive's cache:
	// what is read from now on stays.
	if err := writeSuperblocks(ctx, d, next); err != nil {
		return nil, err
	}
	if old.EndCopy != next.Drives[0].EndCopy {
		if err := writeDurably(ctx, d, make([]byte, omf.SuperblockSize), old.EndCopy); err != nil {
			return nil, err
		}
	}
	p := newPool(&next, d, opt)
	if err := p.recover(ctx, d); err != nil {
		return nil, err
	}
	return p, nil
}

// fit compares the device with what the superblock says, and takes a larger
// device into use if asked to.
func fit(sb *omf.Superblock, d *bdev.Drive, resize bool) error {
	e := &sb.Drives[0]
	size := d.Geometry().Size &^ (layout.BlockSize - 1)
	if size < e.Size {
		return &api.Error{
			Code: api.ESTATE, Op: opActivate, Device: d.Path(),
			Detail: fmt.Sprintf("the device has shrunk from %d to %d bytes", e.Size, size),
		}
	}
	if d.Geometry().LogicalSector > 1<<e.SectorLog2 {
		return &api.Error{
			Code: api.ESTATE, Op: opActivate, Device: d.Path(),
			Detail: fmt.Sprintf("the device has sectors of %d bytes; the pool was made for %d", d.Geometry().LogicalSector, 1<<e.SectorLog2),
		}
	}
	if resize && size > e.Size {
		e.Size, e.EndCopy = size, size-omf.SuperblockSize
	}
	return nil
}

func newPool(sb *omf.Superblock, d *bdev.Drive, opt Options) *Pool {
	s := opt.Sched
	p := &Pool{opt: opt, sched: s, uses: make(map[layout.ObjectID]*object)}
	p.sb.Store(sb)
	p.life.init(s, sched.RankPool)
	p.admin.init(s, sched.RankAdmin)
	p.ending.init(s)
	p.background.init(s)
	p.usesMu.Init(s, sched.RankUses)
	p.sums = mblock.NewSums(s, opt.SumCacheBytes)
	entry := ownDrive(sb)
	dr := &drive{dev: d, entry: entry, geo: geometryOf(sb, entry)}
	p.drives = []*drive{dr}
	p.byslot = map[uint16]*drive{entry.Slot: dr}
	p.meta = newMeta(p)
	p.fence = newFence(p)
	return p
}

// recover rebuilds memory from the drive.
func (p *Pool) recover(ctx context.Context, d *bdev.Drive) error {
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
	if err := p.claimZones(); err != nil {
		return errors.Join(err, mdc.Abandon())
	}
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
	p.props.Store(&properties{mode: 0o660, verify: true})
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
		d.drain = newDrainer(p.sched, d, p.opt)
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
			Code: api.ECORRUPT, Op: opActivate, Object: o.ID, Device: d.dev.Path(),
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
