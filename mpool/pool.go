package mpool

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"

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
	life   gate
	sb     atomic.Pointer[omf.Superblock] // as last written; changed in life
	closed atomic.Bool                    // changed in life and under usesMu
	ending background                     // changes of the pool as a whole

	// admin serializes changes of roots, owners and properties; it is held
	// until the outcome of their commit is known, so that what is checked is
	// what is changed.
	admin gate
	names namesTable // guarded by its own lock for readers

	background background // of objects and transactions

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
// daemon that must end. EUNKNOWN when the context ends first; it goes on.
func (p *Pool) Abandon(ctx context.Context) error { return p.close(ctx, true) }

func (p *Pool) close(ctx context.Context, force bool) error {
	return p.change(ctx, opDeactivate, func() error {
		if p.closed.Load() {
			return api.Errorf(api.EBADF, opDeactivate, "the pool is deactivated already")
		}
		if err := p.retire(force); err != nil {
			return err
		}
		return p.shut(func(*drive) error { return nil })
	})
}

const opDeactivate = "pool deactivate"

// change changes the pool as a whole: one at a time. If the context ends before
// the change does, that goes on: EUNKNOWN.
func (p *Pool) change(ctx context.Context, op string, f func() error) error {
	if err := p.life.enter(ctx, op); err != nil {
		return err
	}
	left, err := p.ending.run(ctx, op, func() error {
		defer p.life.leave()
		return f()
	}, nil)
	if left {
		return &api.Error{Code: api.EUNKNOWN, Op: op, Err: err, Detail: "it goes on; look at the pool to see its outcome"}
	}
	return err
}

// shut ends the pool, which is retired: background work, the metadata log, then
// each drive, with which last is done before it is closed. The caller is in
// life.
func (p *Pool) shut(last func(*drive) error) error {
	ctx := context.Background()
	p.fence.close()
	err := errors.Join(p.background.wait(ctx), p.meta.close(ctx), p.background.wait(ctx))
	for _, d := range p.drives {
		d.drain.close()
		if qerr := d.dev.Quiesce(ctx); qerr != nil {
			err = errors.Join(err, ioError(opDeactivate, d.dev, qerr))
		}
		err = errors.Join(err, ioError(opDeactivate, d.dev, last(d)), ioError(opDeactivate, d.dev, closeIdle(d.dev)))
	}
	return err
}

// closeIdle closes a drive when no operation is under way any more: operations
// that a context ended the wait for may not have ended.
func closeIdle(d *bdev.Drive) error {
	for {
		if err := d.Quiesce(context.Background()); err != nil {
			return err
		}
		if err := d.Close(); !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
}

// closeDrive closes a drive that a failed operation leaves: at once, or when
// the operations under way have ended.
func closeDrive(s *sched.Sched, d *bdev.Drive) error {
	if d.InFlight() == 0 {
		return closeIdle(d)
	}
	s.Go("drive close", func() {
		_ = closeIdle(d) //nolint:errcheck // nobody is left to be told
	})
	return nil
}

// retire lets nobody use the pool any more: at once, or if nobody holds a
// reference.
func (p *Pool) retire(force bool) error {
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	busy := make([]layout.ObjectID, 0, len(p.uses))
	for id, o := range p.uses { // order does not matter: sorted below
		if o.use.Refs() > 0 {
			busy = append(busy, id)
		}
	}
	if len(busy) == 0 || force {
		p.closed.Store(true)
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

// writable refuses writes on a closed or read-only pool.
func (p *Pool) writable(op string) error {
	if err := p.alive(op); err != nil {
		return err
	}
	if err := p.meta.failure(); err != nil {
		return readOnly(op, err)
	}
	return nil
}
