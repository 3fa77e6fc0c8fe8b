package mpool

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

const opCreate = "pool create"

// CheckName says what is wrong with a pool's name, as an error of the operation
// op: it is 1 to 63 of the characters A-Z a-z 0-9 . _ - and does not begin with
// '-' or '.'.
func CheckName(op, name string) error {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if name == "" || len(name) > api.MaxPoolName || name[0] == '-' || name[0] == '.' ||
		strings.Trim(name, letters) != "" {
		return api.Errorf(api.EINVAL, op,
			"pool name %q: want 1 to %d of A-Z a-z 0-9 . _ - and no '-' or '.' first", name, api.MaxPoolName)
	}
	return nil
}

// Create makes a pool on blank devices, devices of the class capacity and
// o.Staging of the class staging; it does not activate it. The first of devices
// holds the metadata. With o.DryRun nothing is written. Errors: see
// api.Manager.CreatePool; EUNKNOWN when the context ends, or the metadata drive
// fails, while the superblock is written that makes the pool.
func Create(ctx context.Context, name string, devices []string, o api.CreateOptions, opt Options) (api.CreateResult, error) {
	opt = opt.withDefaults()
	if err := checkCreate(name, devices, o); err != nil {
		return api.CreateResult{}, err
	}
	c := &creation{opt: opt, name: name, o: o}
	paths := append(append([]string(nil), devices...), o.Staging...)
	if err := c.differ(paths); err != nil {
		return api.CreateResult{}, err
	}
	res, err := c.create(ctx, paths, len(devices))
	for _, d := range c.drives {
		if cerr := closeDrive(opt.Sched, d.dev); err == nil && cerr != nil {
			err = &api.Error{Code: api.EIO, Op: opCreate, Device: d.dev.Path(), Err: cerr}
		}
	}
	return res, err
}

func checkCreate(name string, devices []string, o api.CreateOptions) error {
	if err := CheckName(opCreate, name); err != nil {
		return err
	}
	switch n := len(devices) + len(o.Staging); {
	case len(devices) == 0:
		return api.Errorf(api.EINVAL, opCreate, "no device given")
	case n > omf.MaxDrives:
		return api.Errorf(api.EINVAL, opCreate, "%d devices: a pool has at most %d", n, omf.MaxDrives)
	case len(o.Label) > api.MaxLabel || !printable(o.Label):
		return api.Errorf(api.EINVAL, opCreate, "label: want at most %d bytes of printable UTF-8", api.MaxLabel)
	case o.Mode&^0o777 != 0:
		return api.Errorf(api.EINVAL, opCreate, "mode %o has more than permission bits", o.Mode)
	}
	return nil
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
	p := properties{uid: o.UID, gid: o.GID, mode: o.Mode, label: o.Label, verify: true, shared: sharedUnset}
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
