package mpool

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// CheckName says what is wrong with a pool's name: it is 1 to 63 of the
// characters A-Z a-z 0-9 . _ - and does not begin with '-' or '.'.
func CheckName(name string) error {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if name == "" || len(name) > api.MaxPoolName || name[0] == '-' || name[0] == '.' ||
		strings.Trim(name, letters) != "" {
		return api.Errorf(api.EINVAL, "pool create",
			"pool name %q: want 1 to %d of A-Z a-z 0-9 . _ - and no '-' or '.' first", name, api.MaxPoolName)
	}
	return nil
}

// Create makes a pool on a blank device; it does not activate it. With
// o.DryRun nothing is written. Errors: see api.Manager.CreatePool.
func Create(ctx context.Context, name string, devices []string, o api.CreateOptions, opt Options) (api.CreateResult, error) {
	opt = opt.withDefaults()
	var res api.CreateResult
	if err := checkCreate(name, devices, o); err != nil {
		return res, err
	}
	path := devices[0]
	d, err := opt.Open(ctx, path, o.DryRun)
	if err != nil {
		return res, openError("pool create", path, err)
	}
	err = create(ctx, d, name, o, opt, &res)
	if cerr := closeDrive(opt.Sched, d); err == nil && cerr != nil {
		err = &api.Error{Code: api.EIO, Op: "pool create", Device: path, Err: cerr}
	}
	return res, err
}

func checkCreate(name string, devices []string, o api.CreateOptions) error {
	const op = "pool create"
	if err := CheckName(name); err != nil {
		return err
	}
	if len(devices) == 0 {
		return api.Errorf(api.EINVAL, op, "no device given")
	}
	if len(devices) > 1 || len(o.Staging) > 0 {
		return api.Errorf(api.ENOTSUP, op, "this version makes pools of one drive; the format has room for %d", omf.MaxDrives)
	}
	if len(o.Label) > api.MaxLabel {
		return api.Errorf(api.EINVAL, op, "label of %d bytes: at most %d", len(o.Label), api.MaxLabel)
	}
	if o.Mode&^0o777 != 0 {
		return api.Errorf(api.EINVAL, op, "mode %o has more than permission bits", o.Mode)
	}
	return nil
}

func create(ctx context.Context, d *bdev.Drive, name string, o api.CreateOptions, opt Options, res *api.CreateResult) error {
	const op = "pool create"
	geo := d.Geometry()
	zone := o.ZoneSize
	if zone == 0 {
		zone = defaultZone(geo.Size)
	}
	g, err := divide(geo.Size, zone, opt.MetadataBytes)
	if err != nil {
		return err
	}
	what, err := occupied(ctx, d)
	if err != nil {
		return ioError(op, d, err)
	}
	if what != "" && !o.Force {
		return &api.Error{
			Code: api.ESTATE, Op: op, Device: d.Path(),
			Detail: fmt.Sprintf("the device carries %s; --force overwrites it", what),
		}
	}
	sb, err := newSuperblock(name, d, g, opt)
	if err != nil {
		return err
	}
	*res = api.CreateResult{
		Name: name, UUID: sb.Pool.String(), ZoneSize: zone,
		OverheadBytes: g.overhead + g.rest,
		UsableBytes:   g.size - g.overhead - g.rest,
		Drives: []api.DriveInfo{{
			Path: d.Path(), UUID: sb.Drive.String(), Class: api.ClassCapacity, State: "online",
			Size: g.size, Free: g.size - g.overhead - g.rest, Engine: d.EngineName(), SectorSize: geo.LogicalSector,
		}},
	}
	if o.DryRun {
		return nil
	}
	old, err := readSuperblocks(ctx, d)
	if err != nil {
		return ioError(op, d, err)
	}
	var ends []int64
	if old.newest != nil {
		ends = append(ends, ownDrive(old.newest).EndCopy)
	}
	// Old copies go first: a crash must not leave a mixture of two pools.
	if err := wipeSuperblocks(ctx, d, ends...); err != nil {
		return ioError(op, d, err)
	}
	if err := createMetadata(ctx, d, sb, o, opt); err != nil {
		return ioError(op, d, err)
	}
	if err := writeSuperblocks(ctx, d, *sb); err != nil {
		return ioError(op, d, err)
	}
	return nil
}

func newSuperblock(name string, d *bdev.Drive, g geometry, opt Options) (*omf.Superblock, error) {
	var ids [2]uuid.UUID
	for i := range ids {
		var err error
		if ids[i], err = opt.newUUID(); err != nil {
			return nil, &api.Error{Code: api.EIO, Op: "pool create", Detail: "no random numbers", Err: err}
		}
	}
	// Two pools made one after the other on the same drive must not take each
	// other's log pages for their own: the logs' birth stamps are random here,
	// far above those that objects get.
	for i := range g.logs {
		g.logs[i].Birth = logBirth(ids[0], i)
	}
	return &omf.Superblock{
		Pool: ids[0], Drive: ids[1], Generation: 1, Epoch: 1, Name: name, State: omf.StateNormal,
		Created: uint64(opt.Sched.Now().UnixMilli()), Logs: g.logs,
		Drives: []omf.Drive{{
			Class: uint8(api.ClassCapacity), State: omf.DriveOnline,
			ZoneLog2:   uint8(bits.TrailingZeros64(uint64(g.zone))),
			SectorLog2: uint8(bits.TrailingZeros(uint(d.Geometry().LogicalSector))),
			UUID:       ids[1], Size: g.size, EndCopy: g.size - omf.SuperblockSize,
		}},
	}, nil
}

// logBirth makes the birth stamp of a metadata log from the pool's UUID: the
// top bit set, which counters never reach.
func logBirth(pool uuid.UUID, i int) layout.BirthStamp {
	var v uint64
	for _, c := range pool[8:] {
		v = v<<8 | uint64(c)
	}
	return layout.BirthStamp(v&^3 | 1<<63 | uint64(i))
}

// objectBirth makes the first birth stamp of a pool's objects from its UUID, for
// the same reason: what a former pool left on the drive must not pass for an
// object's. It has 47 bits, so that the table's entries hold what follows, too.
func objectBirth(pool uuid.UUID) layout.BirthStamp {
	var v uint64
	for _, c := range pool[:6] {
		v = v<<8 | uint64(c)
	}
	return firstBirth + layout.BirthStamp(v&(1<<47-1))
}

// logConfigs describes the two metadata logs.
func logConfigs(d *bdev.Drive, sb *omf.Superblock, opt Options) [2]mlog.Config {
	var c [2]mlog.Config
	for i, l := range sb.Logs {
		c[i] = mlog.Config{
			Sched: opt.Sched, Drive: d, Birth: l.Birth, Epoch: sb.Epoch,
			Extent: layout.Extent{Drive: sb.MetaSlot, Start: l.Start, Blocks: l.Blocks},
		}
	}
	return c
}

// createMetadata writes the metadata container with the pool's first record.
func createMetadata(ctx context.Context, d *bdev.Drive, sb *omf.Superblock, o api.CreateOptions, opt Options) error {
	c := logConfigs(d, sb, opt)
	cfg := mlog.MDCConfig{A: c[0], B: c[1], Discover: true}
	if err := mlog.CreateMDC(ctx, cfg); err != nil {
		return err
	}
	mdc, err := mlog.OpenMDC(ctx, cfg)
	if err != nil {
		return err
	}
	var r omf.Record
	p := properties{uid: o.UID, gid: o.GID, mode: o.Mode, label: o.Label, verify: true}
	if p.mode == 0 {
		p.mode = 0o660
	}
	p.encode(&r)
	r.Counter(firstID, objectBirth(sb.Pool))
	if _, err = mdc.Append(ctx, r.Bytes()); err == nil {
		err = mdc.Sync(ctx)
	}
	return errors.Join(err, mdc.Close(ctx))
}
