package mpool

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// drive is one drive of an active pool. Whatever may wait for its device
// belongs to it alone, so that a drive that hangs holds up nothing else.
type drive struct {
	dev   *bdev.Drive // nil: missing
	entry omf.Drive
	geo   geometry
	zones *space.Map
	drain *drainer
	logs  *mlog.Writers // of the logs that are written without somebody who waits

	background background // what must come to its end on this drive
	mirror     mirror
	pace       pace
	told       atomic.Bool // that it has failed
}

// newDrive makes a drive of the pool whose superblock sb is. dev is nil when
// the drive is missing.
func (p *Pool) newDrive(sb *omf.Superblock, e omf.Drive, dev *bdev.Drive) *drive {
	d := &drive{dev: dev, entry: e, geo: geometryOf(sb, e)}
	d.background.init(p.sched)
	d.mirror.init(p.sched, d)
	d.pace.mu.Init(p.sched, sched.RankSpace)
	if dev != nil {
		d.logs = mlog.NewWriters(p.sched, dev)
		dev.Watch(func(_ bdev.OpCode, err error) {
			if !d.told.Swap(true) {
				// Operations end where nothing may block.
				p.sched.Go("drive failed", func() {
					p.opt.OnEvent(Event{Type: EventDriveFailed, Device: dev.Path(), Err: err})
				})
			}
		})
	}
	return d
}

// path returns the device's path, or "" if it is missing.
func (d *drive) path() string {
	if d.dev == nil {
		return ""
	}
	return d.dev.Path()
}

// failed says whether the drive failed a write or a flush since activation.
func (d *drive) failed() bool { return d.dev != nil && d.dev.Failures() > 0 }

// present refuses what needs the device of a missing drive.
func (d *drive) present(op string, id layout.ObjectID) error {
	if d.dev != nil {
		return nil
	}
	return &api.Error{
		Code: api.EIO, Op: op, Object: id,
		Detail: fmt.Sprintf("the object lies on %s, which is missing: deactivate the pool and activate it with that drive", describeDrive(d.entry)),
	}
}

// describeDrive names a drive by what the drive table has of it.
func describeDrive(e omf.Drive) string {
	return fmt.Sprintf("drive %d (%v, %v, %d bytes)", e.Slot, e.UUID, api.Class(e.Class), e.Size)
}

// info describes the drive.
func (d *drive) info() api.DriveInfo {
	s := d.space()
	i := api.DriveInfo{
		UUID: d.entry.UUID.String(), Slot: d.entry.Slot, Class: api.Class(d.entry.Class),
		State: "online", Size: s.Total, Free: s.Free, SectorSize: 1 << d.entry.SectorLog2,
	}
	switch {
	case d.dev == nil:
		i.State = "missing"
		return i
	case d.failed():
		i.State = "failed"
	}
	i.Path, i.Engine, i.SectorSize = d.dev.Path(), d.dev.EngineName(), d.dev.Geometry().LogicalSector
	return i
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

// superblock returns the drive's own form of the pool's superblock.
func (d *drive) superblock(sb *omf.Superblock) omf.Superblock {
	own := *sb
	own.Slot, own.Drive = d.entry.Slot, d.entry.UUID
	return own
}

// mirror brings a drive's superblocks up to what the metadata drive has. It is
// one task at most, in the drive's background.
type mirror struct {
	drive *drive

	mu sched.Mutex
	// +checklocks:mu
	want *omf.Superblock // to be written, or nil
	// +checklocks:mu
	running bool
}

func (m *mirror) init(s *sched.Sched, d *drive) {
	m.drive = d
	m.mu.Init(s, sched.RankQueue)
}

// follow has the superblock written. It does not wait for that. A drive that
// fails it has failed; the next activation brings it up.
func (m *mirror) follow(sb *omf.Superblock) {
	m.mu.Lock()
	m.want = sb
	start := !m.running
	m.running = true
	m.mu.Unlock()
	if start {
		m.drive.background.start("superblock", m.run)
	}
}

func (m *mirror) run() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.want != nil {
		sb := m.want
		m.want = nil
		m.mu.Unlock()
		// The device has counted a failure.
		_ = writeSuperblocks(context.Background(), m.drive.dev, m.drive.superblock(sb)) //nolint:errcheck // see above
		m.mu.Lock()
	}
	m.running = false
}

// stuckAfter is how long no operation of a drive ends, while some are under
// way, before allocations avoid it.
const stuckAfter = 500 * time.Millisecond

// pace notices that a drive does not get on.
type pace struct {
	mu sched.Mutex
	// +checklocks:mu
	ended uint64 // operations that had ended, when it was last looked at
	// +checklocks:mu
	since time.Time // from then on none has ended although one was under way; or zero
}

// stuck says whether operations of the drive are under way and none has ended
// for a while, as far as those who asked before have seen.
func (d *drive) stuck(now time.Time) bool {
	inflight := d.dev.InFlight()
	s := d.dev.Stats()
	ended := s.Reads + s.Writes + s.Flushes + s.Discards - uint64(inflight)
	p := &d.pace
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case inflight == 0:
		p.since = time.Time{}
	case p.since.IsZero() || ended != p.ended:
		p.ended, p.since = ended, now
	default:
		return now.Sub(p.since) >= stuckAfter
	}
	return false
}
