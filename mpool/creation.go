package mpool

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// creation is the making of a pool. Its order of writes is what makes it
// atomic: superblocks that were there are wiped; the superblocks of all drives
// but the first are written, then the metadata logs, then the superblock of the
// first drive, the metadata drive. With that one the pool is there.
type creation struct {
	opt    Options
	name   string
	o      api.CreateOptions
	drives []newDrive // by slot
	sb     *omf.Superblock
}

// newDrive is a drive that is being taken into a new pool.
type newDrive struct {
	dev   *bdev.Drive
	class api.Class
	geo   geometry
	ends  []int64 // where superblocks that are there have their last copy
}

// differ refuses two paths that name one device. Two that the kernel cannot
// relate are found by distinct.
func (c *creation) differ(paths []string) error {
	byPath := make(map[string]bool)
	byID := make(map[bdev.DeviceID]string)
	for _, path := range paths {
		if byPath[path] {
			return &api.Error{Code: api.EINVAL, Op: opCreate, Device: path, Detail: "the device is named twice"}
		}
		byPath[path] = true
		if c.opt.Sched.Simulated() {
			continue
		}
		id, ok := bdev.Identify(path)
		if other := byID[id]; ok && other != "" {
			return sameDevice(other, path)
		}
		byID[id] = path
	}
	return nil
}

func sameDevice(a, b string) error {
	return &api.Error{Code: api.EINVAL, Op: opCreate, Device: b, Detail: fmt.Sprintf("%s and %s are the same device", a, b)}
}

// create makes the pool on the devices of paths, of which the first so many are
// of the class capacity.
func (c *creation) create(ctx context.Context, paths []string, capacity int) (api.CreateResult, error) {
	for i, path := range paths {
		d, err := c.opt.Open(ctx, path, c.o.DryRun)
		if err != nil {
			return api.CreateResult{}, openError(opCreate, path, err)
		}
		class := api.ClassCapacity
		if i >= capacity {
			class = api.ClassStaging
		}
		c.drives = append(c.drives, newDrive{dev: d, class: class})
	}
	if err := c.divide(); err != nil {
		return api.CreateResult{}, err
	}
	for i := range c.drives {
		if err := c.blank(ctx, &c.drives[i]); err != nil {
			return api.CreateResult{}, err
		}
	}
	if err := c.superblock(); err != nil {
		return api.CreateResult{}, err
	}
	res := c.result()
	if c.o.DryRun {
		return res, nil
	}
	return res, c.write(ctx)
}

// divide plans all drives. They have zones of one size.
func (c *creation) divide() error {
	zone := c.o.ZoneSize
	var total int64
	for _, d := range c.drives {
		total += d.dev.Geometry().Size
	}
	if zone == 0 {
		zone = defaultZone(total)
	}
	metaBytes := c.opt.MetadataBytes
	if metaBytes == 0 {
		metaBytes = metaLogBytes(total, c.drives[0].dev.Geometry().Size, zone)
	}
	for i := range c.drives {
		d := &c.drives[i]
		var err error
		if d.geo, err = divide(d.dev.Geometry().Size, zone, metaBytes); err != nil {
			if e, ok := errors.AsType[*api.Error](err); ok {
				e.Device = d.dev.Path()
			}
			return err
		}
		metaBytes = -1
	}
	return nil
}

// blank refuses a drive that carries something, unless forced.
func (c *creation) blank(ctx context.Context, d *newDrive) error {
	what, err := occupied(ctx, d.dev)
	switch {
	case err == nil:
	case c.o.Force && ctx.Err() == nil:
		// A write that a power cut has torn may leave a sector that cannot be read
		// until it is written.
	default:
		err = ioError(opCreate, d.dev, err)
		if e, ok := errors.AsType[*api.Error](err); ok && e.Code == api.EIO {
			e.Detail = "whether the device carries anything cannot be read; --force overwrites it"
		}
		return err
	}
	old, err := readSuperblocks(ctx, d.dev)
	if err != nil {
		return ioError(opCreate, d.dev, err)
	}
	if sb := old.newest; sb != nil {
		d.ends = append(d.ends, ownDrive(sb).EndCopy)
		what = "mpool" + formerPool(sb)
	}
	if what == "" {
		return nil
	}
	if c.o.Force {
		return nil
	}
	return &api.Error{
		Code: api.ESTATE, Op: opCreate, Device: d.dev.Path(),
		Detail: fmt.Sprintf("the device carries %s; --force overwrites it", what),
	}
}

// formerPool says of which pool a superblock is, and what may have become of
// that.
func formerPool(sb *omf.Superblock) string {
	s := fmt.Sprintf(", drive %d of pool %q (%v)", sb.Slot, sb.Name, sb.Pool)
	switch {
	case sb.State == omf.StateDestroyed:
		s += ", which was destroyed"
	case sb.Generation == 1 && sb.Slot != sb.MetaSlot:
		s += ", which was never activated: a creation that was cut off leaves this"
	}
	return s
}

// superblock makes the new pool's superblock, as the metadata drive has it.
func (c *creation) superblock() error {
	ids := make([]uuid.UUID, 1+len(c.drives))
	for i := range ids {
		var err error
		if ids[i], err = c.opt.newUUID(); err != nil {
			return &api.Error{Code: api.EIO, Op: opCreate, Detail: "no random numbers", Err: err}
		}
	}
	sb := &omf.Superblock{
		Pool: ids[0], Drive: ids[1], Generation: 1, Epoch: 1, Name: c.name, State: omf.StateNormal,
		Created: uint64(c.opt.Sched.Now().UnixMilli()), Logs: c.drives[0].geo.logs,
	}
	// Two pools made one after the other on the same drive must not take each
	// other's log pages for their own: the logs' birth stamps are random here,
	// far above those that objects get.
	for i := range sb.Logs {
		sb.Logs[i].Birth = logBirth(ids[0], i)
	}
	for i, d := range c.drives {
		sb.Drives = append(sb.Drives, omf.Drive{
			Slot: uint16(i), Class: uint8(d.class), State: omf.DriveOnline,
			ZoneLog2:   uint8(bits.TrailingZeros64(uint64(d.geo.zone))),
			SectorLog2: uint8(bits.TrailingZeros(uint(d.dev.Geometry().LogicalSector))),
			UUID:       ids[1+i], Size: d.geo.size, EndCopy: d.geo.size - omf.SuperblockSize,
		})
	}
	c.sb = sb
	return nil
}

// own returns the superblock as a drive has it.
func (c *creation) own(slot int) omf.Superblock {
	sb := *c.sb
	sb.Slot, sb.Drive = uint16(slot), sb.Drives[slot].UUID
	return sb
}

func (c *creation) result() api.CreateResult {
	res := api.CreateResult{Name: c.name, UUID: c.sb.Pool.String(), ZoneSize: c.drives[0].geo.zone}
	for i, d := range c.drives {
		over := d.geo.overhead + d.geo.rest
		res.OverheadBytes += over
		res.UsableBytes += d.geo.size - over
		res.Drives = append(res.Drives, api.DriveInfo{
			Path: d.dev.Path(), UUID: c.sb.Drives[i].UUID.String(), Slot: uint16(i), Class: d.class, State: "online",
			Size: d.geo.size, Free: d.geo.size - over, Engine: d.dev.EngineName(), SectorSize: d.dev.Geometry().LogicalSector,
		})
	}
	return res
}

// write writes the pool. After an error it is not there, unless that is
// EUNKNOWN.
func (c *creation) write(ctx context.Context) error {
	// Old copies go first: a crash must not leave a mixture of two pools.
	for _, d := range c.drives {
		if err := wipeSuperblocks(ctx, d.dev, d.ends...); err != nil {
			return ioError(opCreate, d.dev, err)
		}
	}
	if err := c.prepare(ctx); err != nil {
		c.undo(ctx, false)
		return err
	}
	d := c.drives[0].dev
	err := writeSuperblocks(ctx, d, *c.sb)
	if err == nil {
		return nil
	}
	if !c.undo(ctx, true) {
		return &api.Error{
			Code: api.EUNKNOWN, Op: opCreate, Device: d.Path(), Err: err,
			Detail: "the superblock that makes the pool could not be written whole; whether there is a pool now is unknown",
		}
	}
	return ioError(opCreate, d, err)
}

// prepare writes all but what makes the pool.
func (c *creation) prepare(ctx context.Context) error {
	for i := 1; i < len(c.drives); i++ {
		d := c.drives[i].dev
		if err := writeSuperblocks(ctx, d, c.own(i)); err != nil {
			return ioError(opCreate, d, err)
		}
	}
	if err := createMetadata(ctx, c.drives[0].dev, c.sb, c.o, c.opt); err != nil {
		return ioError(opCreate, c.drives[0].dev, err)
	}
	return c.distinct(ctx)
}

// distinct reads back what was written to each drive, and that nothing was to
// the first: two paths to one device that the kernel does not relate show the
// same there.
func (c *creation) distinct(ctx context.Context) error {
	if len(c.drives) == 1 {
		return nil
	}
	for i, d := range c.drives {
		s, err := readSuperblocks(ctx, d.dev)
		switch {
		case err != nil:
			return ioError(opCreate, d.dev, err)
		case s.newest == nil && i == 0:
		case s.newest != nil && s.newest.Pool == c.sb.Pool && int(s.newest.Slot) == i:
		case s.newest != nil && s.newest.Pool == c.sb.Pool:
			return sameDevice(d.dev.Path(), c.drives[s.newest.Slot].dev.Path())
		default:
			return &api.Error{
				Code: api.EIO, Op: opCreate, Device: d.dev.Path(), Err: s.err,
				Detail: "the superblock that was just written cannot be read back: somebody else writes to the device, or it is broken",
			}
		}
	}
	return nil
}

// undo wipes what was written, the metadata drive first. It returns true when
// that is durable there: then there is no pool. If it is not, and there may be one,
// the others stay as they are, so that it is whole.
func (c *creation) undo(ctx context.Context, made bool) bool {
	gone := wipeSuperblocks(ctx, c.drives[0].dev) == nil
	if made && !gone {
		return false
	}
	for _, d := range c.drives[1:] {
		// What stays is refused, without force, by the next creation.
		_ = wipeSuperblocks(ctx, d.dev) //nolint:errcheck // see above
	}
	return gone
}

// maxMetaShare is which part of the metadata drive each of the two logs takes
// at most.
const maxMetaShare = 8

// metaLogBytes returns the size of each metadata log of a pool of so many bytes
// in all, of which the metadata drive has own: as many as that drive's zones
// need, and more for the zones of the others as far as there is room.
func metaLogBytes(total, own, zone int64) int64 {
	if zone < minZone || total == own {
		return 0 // divide refuses it, or it is by the formula of one drive
	}
	most := max(own/maxMetaShare, own/zone*metaPerZone, minMetaLog)
	return min(max(total/zone*metaPerZone, minMetaLog), most) &^ (layout.BlockSize - 1)
}
