package mpool

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

const opActivate = "pool activate"

// Activate finds a pool by name or UUID on the given devices (none: on all
// block devices of the host), recovers it from them alone and returns it. The
// devices may be given in any order, and others among them. Those that cannot be
// looked at do not matter unless the pool lacks a drive. With o.Force a pool
// that lacks drives, but not the metadata drive, is activated read-only, and
// nothing is written to any drive. Errors: see api.Manager.ActivatePool.
func Activate(ctx context.Context, nameOrUUID string, devices []string, o api.ActivateOptions, opt Options) (*Pool, error) {
	opt = opt.withDefaults()
	m, s, err := gather(ctx, nameOrUUID, devices, opt)
	if err != nil {
		return nil, err
	}
	p, err := m.activate(ctx, s, o, opt)
	if err != nil {
		return nil, errors.Join(err, m.close(opt))
	}
	return p, nil
}

// gather finds the drives of a pool and claims them.
func gather(ctx context.Context, nameOrUUID string, devices []string, opt Options) (*members, *survey, error) {
	s := &survey{name: nameOrUUID, all: len(devices) == 0}
	if s.all {
		var err error
		if devices, err = opt.Devices(); err != nil {
			return nil, nil, err
		}
	}
	for i, path := range devices {
		if slices.Contains(devices[:i], path) {
			continue
		}
		if err := s.look(ctx, path, opt); err != nil {
			return nil, nil, err
		}
	}
	sb, err := s.choose()
	if err != nil {
		return nil, nil, err
	}
	if f := sb.ROCompat &^ omf.KnownROCompat; f != 0 {
		return nil, nil, api.Errorf(api.ENOTSUP, opActivate, "the pool has features %#x that this version could only read", f)
	}
	paths, err := s.members(sb)
	if err != nil {
		return nil, nil, err
	}
	if len(paths) == 0 {
		return nil, nil, api.Errorf(api.ESTATE, opActivate, "no device carries a drive of the pool's drive table%s", s.clues())
	}
	m, err := claim(ctx, paths, sb, opt)
	return m, s, err
}

// activate recovers the pool.
func (m *members) activate(ctx context.Context, s *survey, o api.ActivateOptions, opt Options) (*Pool, error) {
	if err := m.finishDestroy(ctx); err != nil {
		return nil, err
	}
	if err := m.complete(o.Force, s.clues()); err != nil {
		return nil, err
	}
	whole := len(m.absent) == 0
	next := *m.meta().sb
	next.Drives = append([]omf.Drive(nil), next.Drives...)
	for i := range next.Drives {
		e := &next.Drives[i]
		if x := m.drive(e.Slot); x != nil && e.State == omf.DriveOnline {
			if err := fit(e, x.dev, o.Resize && whole); err != nil {
				return nil, err
			}
		}
	}
	if whole {
		next.Generation++
		next.Epoch++
	}
	p := newPool(&next, m, opt)
	if whole {
		if err := p.takeOver(ctx, m); err != nil {
			return nil, err
		}
	} else {
		err := fmt.Errorf("%w: %s", errIncomplete, m.absentText())
		p.meta.failed.Store(&err)
	}
	if err := p.recover(ctx); err != nil {
		return nil, ioError(opActivate, p.metaDrive().dev, err)
	}
	return p, nil
}

// takeOver makes the superblock of this activation durable: on the metadata
// drive before anything else is written anywhere, then on the others. One of
// those that fails has failed, and is brought up by a later activation.
//
// This also flushes what a process that died left in the drives' caches: what
// is read from now on stays.
func (p *Pool) takeOver(ctx context.Context, m *members) error {
	if err := p.catchUp(ctx, m); err != nil {
		return err
	}
	sb := p.sb.Load()
	if err := p.metaDrive().takeOver(ctx, sb, m); err != nil {
		return ioError(opActivate, p.metaDrive().dev, err)
	}
	for _, d := range p.drives {
		if d.entry.Slot == sb.MetaSlot {
			continue
		}
		if err := d.takeOver(ctx, sb, m); err != nil && (ctx.Err() != nil || !d.failed()) {
			return ioError(opActivate, d.dev, err)
		}
	}
	return nil
}

// catchUp brings drives that lag to where the metadata drive is before that goes
// on. So a drive that was there each time, and did not fail, lags by one epoch at
// most, however many activations were cut off: see members.complete.
//
// Before, it mends what an activation that was cut off has left, on the metadata
// drive first: if only one copy is the newest, writing over it may lose it.
func (p *Pool) catchUp(ctx context.Context, m *members) error {
	sb := m.meta().sb
	if err := m.meta().mend(ctx); err != nil {
		return ioError(opActivate, p.metaDrive().dev, err)
	}
	for _, d := range p.drives {
		if d.entry.Slot == sb.MetaSlot {
			continue
		}
		x := m.drive(d.entry.Slot)
		err := x.mend(ctx)
		if err == nil && x.sb.Generation != sb.Generation {
			err = writeSuperblocks(ctx, d.dev, d.superblock(sb))
		}
		if err != nil && (ctx.Err() != nil || !d.failed()) {
			return ioError(opActivate, d.dev, err)
		}
	}
	return nil
}

// mend sees to it that the first two copies of a drive are its newest. The third
// is left alone: of a drive that lags, its place may be an object's by now.
func (x *member) mend(ctx context.Context) error {
	return writeCopies(ctx, x.dev, *x.sb, copies{!x.right[0], !x.right[1]})
}

func (d *drive) takeOver(ctx context.Context, sb *omf.Superblock, m *members) error {
	if err := writeSuperblocks(ctx, d.dev, d.superblock(sb)); err != nil {
		return err
	}
	own := ownDrive(m.drive(d.entry.Slot).sb)
	if own.EndCopy == d.entry.EndCopy || !slices.Contains(m.meta().sb.Drives, own) {
		// The drive has not grown, or it has before, and lags: what was its end
		// may be an object's by now.
		return nil
	}
	return writeDurably(ctx, d.dev, make([]byte, omf.SuperblockSize), own.EndCopy)
}

// newPool makes the pool that has the superblock. A drive of the table that is
// not among the members is missing.
func newPool(sb *omf.Superblock, m *members, opt Options) *Pool {
	s := opt.Sched
	p := &Pool{opt: opt, sched: s, uses: make(map[layout.ObjectID]*object), byslot: make(map[uint16]*drive)}
	p.sb.Store(sb)
	p.life.init(s, sched.RankPool)
	p.admin.init(s, sched.RankAdmin)
	p.ending.init(s)
	p.background.init(s)
	p.freed.init(s)
	p.usesMu.Init(s, sched.RankUses)
	p.sums = mblock.NewSums(s, opt.SumCacheBytes)
	for _, e := range sb.Drives {
		if e.State != omf.DriveOnline {
			continue
		}
		var dev *bdev.Drive
		if x := m.drive(e.Slot); x != nil {
			dev = x.dev
		}
		d := p.newDrive(sb, e, dev)
		p.drives = append(p.drives, d)
		p.byslot[e.Slot] = d
	}
	p.meta = newMeta(p)
	p.fence = newFence(p)
	return p
}
