package mpool

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// Pool is an active pool. It implements [api.Pool]. Safe for concurrent use.
type Pool struct {
	opt    Options
	sched  *sched.Sched
	table  *layout.Table
	sums   *mblock.SumCache
	drives []*drive // by the order of their slots; fixed while active
	byslot map[uint16]*drive
	freed  releases
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
	// holdings say what owners hold; see holdings.go.
	holdings holdings

	background background // of transactions; that of objects is their drives'

	usesMu sched.Mutex
	// +checklocks:usesMu
	uses map[layout.ObjectID]*object
}

// Name returns the pool's name.
func (p *Pool) Name() string { return p.sb.Load().Name }

// UUID returns the pool's UUID.
func (p *Pool) UUID() string { return p.sb.Load().Pool.String() }

// metaDrive returns the drive that the metadata lies on; it is never missing.
func (p *Pool) metaDrive() *drive { return p.byslot[p.sb.Load().MetaSlot] }

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
		Shared: pr.shared == 1,
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
		i := d.info()
		if i.State != "online" {
			info.Health = "degraded"
		}
		info.Drives = append(info.Drives, i)
	}
	if err := p.meta.failure(); err != nil {
		info.State = "read-only"
		if !errors.Is(err, errIncomplete) {
			info.Health = "faulted"
		}
	}
	return info, nil
}

// DriveStats returns the I/O counters of each drive that is there by its path.
func (p *Pool) DriveStats() map[string]bdev.Stats {
	m := make(map[string]bdev.Stats, len(p.drives))
	for _, d := range p.drives {
		if d.dev != nil {
			m[d.dev.Path()] = d.dev.Stats()
		}
	}
	return m
}

// MemoryBytes returns the memory of the layout table, and of inline checksums
// beyond each object's first.
func (p *Pool) MemoryBytes() (table, sums int64) { return p.table.Bytes() }

// CacheBytes returns the memory of checksum pages that are cached.
func (p *Pool) CacheBytes() int64 { return p.sums.Bytes() }

// cacheStep is how much the cache grows until MemoryGrowths tells, in bytes.
const cacheStep = 256 << 10

// MemoryGrowths returns a number that rises when MemoryBytes or CacheBytes do, of the cache
// in steps of 256 KiB. It takes no lock.
func (p *Pool) MemoryGrowths() uint64 { return p.table.Growths() + uint64(p.sums.Bytes()/cacheStep) }

// alive refuses calls on a closed pool.
func (p *Pool) alive(op string) error {
	if p.closed.Load() {
		return api.Errorf(api.EBADF, op, "the pool is deactivated")
	}
	return nil
}

// timely refuses a call whose context has ended before it begins.
func timely(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return api.ContextError(op, context.Cause(ctx))
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
