package mpool

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// Pool is an active pool. It implements [api.Pool]. Safe for concurrent use.
type Pool struct {
	opt    Options
	sched  *sched.Sched
	table  *layout.Table
	sums   *mblock.SumCache
	drives []*drive // by the order of their slots; fixed while active
	byslot map[uint16]*drive
	meta   *meta
	ids    counters
	fence  *fence
	props  atomic.Pointer[properties]

	// life serializes changes of the pool as a whole; it is held across their
	// I/O, so nothing on a request's path takes it.
	life   sched.Mutex
	sb     atomic.Pointer[omf.Superblock] // as last written; changed under life
	closed atomic.Bool                    // set under life

	// admin serializes changes of roots, owners and properties; it is held
	// across their commit, so that what is checked is what is changed.
	admin sched.Mutex
	names namesTable // guarded by its own lock for readers

	usesMu sched.Mutex
	// +checklocks:usesMu
	uses map[layout.ObjectID]*object
}

// drive is one drive of an active pool.
type drive struct {
	dev   *bdev.Drive
	entry omf.Drive
	geo   geometry
	zones *space.Map
	drain *drainer
}

// Name returns the pool's name.
func (p *Pool) Name() string { return p.sb.Load().Name }

// UUID returns the pool's UUID.
func (p *Pool) UUID() string { return p.sb.Load().Pool.String() }

// Access returns who may open the pool: its owner, group and permission bits.
func (p *Pool) Access() (uid, gid, mode uint32) {
	pr := p.props.Load()
	return pr.uid, pr.gid, pr.mode
}

// Info implements [api.Pool].
func (p *Pool) Info(context.Context) (api.PoolInfo, error) {
	sb := p.sb.Load()
	pr := p.props.Load()
	info := api.PoolInfo{
		Name: sb.Name, UUID: sb.Pool.String(), Label: pr.label, State: "active", Health: "optimal",
		ZoneSize: p.drives[0].geo.zone, Stored: p.table.Stored(),
		Mblocks: int64(p.table.Count(layout.KindMblock)), Mlogs: int64(p.table.Count(layout.KindMlog)),
		UID: pr.uid, GID: pr.gid, Mode: pr.mode, Spare: pr.spare, Epoch: sb.Epoch, Verify: pr.verify,
	}
	if p.meta.failure() != nil {
		info.State, info.Health = "read-only", "faulted"
	}
	for _, d := range p.drives {
		s := d.space()
		info.Space.Total += s.Total
		info.Space.Free += s.Free
		info.Space.Live += s.Live
		info.Space.Uncommitted += s.Uncommitted
		info.Space.Draining += s.Draining
		info.Space.Spare += s.Spare
		info.Space.Overhead += s.Overhead
		info.Space.Remainder += s.Remainder
		info.Drives = append(info.Drives, api.DriveInfo{
			Path: d.dev.Path(), UUID: d.entry.UUID.String(), Slot: d.entry.Slot, Class: api.Class(d.entry.Class),
			State: "online", Size: s.Total, Free: s.Free,
			Engine: d.dev.EngineName(), SectorSize: d.dev.Geometry().LogicalSector,
		})
	}
	return info, nil
}

// space accounts for every byte of the drive.
func (d *drive) space() api.Space {
	u := d.zones.Usage()
	z := d.geo.zone
	return api.Space{
		Total: int64(u.Total)*z + d.geo.rest, Remainder: d.geo.rest,
		Free: int64(u.Free) * z, Live: int64(u.Live) * z, Uncommitted: int64(u.Uncommitted) * z,
		Draining: int64(u.Draining) * z, Spare: int64(u.Spare) * z, Overhead: int64(u.Overhead) * z,
	}
}

// extent returns where a run of the drive's zones lies.
func (d *drive) extent(r space.Run) layout.Extent {
	zb := d.geo.zoneBlocks()
	return layout.Extent{Drive: d.entry.Slot, Start: uint64(r.Start) * uint64(zb), Blocks: r.Count * zb}
}

// run returns the zones of an extent.
func (d *drive) run(e layout.Extent) space.Run {
	zb := d.geo.zoneBlocks()
	return space.Run{Start: uint32(e.Start / uint64(zb)), Count: e.Blocks / zb}
}

// DriveStats returns the I/O counters of each drive by its path.
func (p *Pool) DriveStats() map[string]bdev.Stats {
	m := make(map[string]bdev.Stats, len(p.drives))
	for _, d := range p.drives {
		m[d.dev.Path()] = d.dev.Stats()
	}
	return m
}

// MemoryBytes returns the memory of the layout table, and of inline checksums
// beyond each object's first.
func (p *Pool) MemoryBytes() (table, sums int64) { return p.table.Bytes() }

// Close deactivates the pool: it waits for background work, closes the metadata
// log cleanly and the drives. EBUSY while handles are in use; uncommitted
// objects whose handles were put are discarded.
func (p *Pool) Close() error { return p.close(context.Background(), false) }

// Abandon closes the pool whatever is in use, as a process's death would:
// uncommitted objects are gone, committed ones and synced records stay. For a
// daemon that must end.
func (p *Pool) Abandon(ctx context.Context) error { return p.close(ctx, true) }

func (p *Pool) close(ctx context.Context, force bool) error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.closed.Load() {
		return api.Errorf(api.EBADF, opDeactivate, "the pool is deactivated already")
	}
	if !force {
		if err := p.idle(); err != nil {
			return err
		}
	}
	return p.shut(ctx, func(*drive) error { return nil })
}

const opDeactivate = "pool deactivate"

// shut ends the pool: background work, the metadata log, then each drive, with
// which last is done before it is closed. The caller holds life.
func (p *Pool) shut(ctx context.Context, last func(*drive) error) error {
	p.closed.Store(true)
	p.fence.close()
	err := p.meta.close(ctx)
	for _, d := range p.drives {
		d.drain.close()
		// Operations that a context ended the wait for may not have ended.
		err = errors.Join(err, ioError(opDeactivate, d.dev, d.dev.Quiesce(ctx)))
		err = errors.Join(err, ioError(opDeactivate, d.dev, last(d)), ioError(opDeactivate, d.dev, d.dev.Close()))
	}
	return err
}

// idle is nil when nobody holds a reference.
func (p *Pool) idle() error {
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	busy := make([]layout.ObjectID, 0, len(p.uses))
	for id, o := range p.uses { // order does not matter: sorted below
		if o.use.Refs() > 0 {
			busy = append(busy, id)
		}
	}
	if len(busy) == 0 {
		return nil
	}
	slices.Sort(busy)
	return api.Errorf(api.EBUSY, opDeactivate, "%d objects are in use, %v for one", len(busy), busy[0])
}

// alive refuses calls on a closed pool.
func (p *Pool) alive(op string) error {
	if p.closed.Load() {
		return api.Errorf(api.EBADF, op, "the pool is deactivated")
	}
	return nil
}
