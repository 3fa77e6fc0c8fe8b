package mpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// member is a drive of the pool that is being activated, claimed.
type member struct {
	dev *bdev.Drive
	sb  *omf.Superblock // the newest of its own copies
	// right are those of its copies that are known to be as new as that.
	right copies
}

// members are the drives of a pool that is being activated.
type members struct {
	list   []member
	sb     *omf.Superblock // the newest of all
	absent []omf.Drive     // of the drive table, online and not there
}

// claim opens the drives of a pool for nobody but us and reads their
// superblocks again. On error it leaves none open.
func claim(ctx context.Context, paths []string, sb *omf.Superblock, opt Options) (m *members, err error) {
	m = &members{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close(opt))
		}
	}()
	for _, path := range paths {
		d, err := opt.Open(ctx, path, false)
		if err != nil {
			return m, openError(opActivate, path, err)
		}
		m.list = append(m.list, member{dev: d})
		s, err := readSuperblocks(ctx, d)
		switch {
		case err != nil:
			return m, ioError(opActivate, d, err)
		case s.newest == nil:
			return m, superblockError(opActivate, path, s.err)
		case s.newest.Pool != sb.Pool:
			return m, &api.Error{Code: api.ENOENT, Op: opActivate, Device: path, Detail: "the device came to belong to another pool just now"}
		}
		m.list[len(m.list)-1].sb, m.list[len(m.list)-1].right = s.newest, s.right
		if m.sb == nil || s.newest.Generation > m.sb.Generation {
			m.sb = s.newest
		}
	}
	return m, m.seat()
}

// seat finds which drives of the table are there.
func (m *members) seat() error {
	for _, e := range m.sb.Drives {
		if e.State != omf.DriveOnline {
			continue
		}
		at := slices.IndexFunc(m.list, func(x member) bool { return x.sb.Drive == e.UUID && x.sb.Slot == e.Slot })
		if at < 0 {
			m.absent = append(m.absent, e)
			continue
		}
		for _, x := range m.list[at+1:] {
			if x.sb.Drive == e.UUID {
				return twice(e, m.list[at].dev.Path(), x.dev.Path())
			}
		}
	}
	return nil
}

// drive returns the member in a slot, or nil.
func (m *members) drive(slot uint16) *member {
	for i := range m.list {
		if m.list[i].sb.Slot == slot {
			return &m.list[i]
		}
	}
	return nil
}

// meta returns the metadata drive, or nil.
func (m *members) meta() *member { return m.drive(m.sb.MetaSlot) }

// close closes all drives.
func (m *members) close(opt Options) error {
	var errs []error
	for _, x := range m.list {
		errs = append(errs, closeDrive(opt.Sched, x.dev))
	}
	return errors.Join(errs...)
}

// maxLag is by how many epochs a drive may lag behind the metadata drive: an
// activation that was cut off leaves one. A drive that lags by more was not there,
// or failed, when others were written: records of its logs may be gone without
// leaving a trace.
const maxLag = 1

// complete says why the pool cannot be activated from the drives that are
// there. With force only the metadata drive must be, and old copies of the others
// are taken.
func (m *members) complete(force bool, clues string) error {
	meta := m.meta()
	for _, e := range m.absent {
		if e.Slot != m.sb.MetaSlot {
			continue
		}
		why := "nothing is known of the pool's objects without it"
		if m.sb.Generation == 1 {
			why = "the pool was never activated: if its creation was cut off, create it again with --force"
		}
		return api.Errorf(api.ESTATE, opActivate, "the metadata drive is missing, %s; %s%s", describeDrive(e), why, clues)
	}
	if meta == nil {
		return api.Errorf(api.ECORRUPT, opActivate, "the metadata drive is not where the drive table has it")
	}
	for _, x := range m.list {
		if x.sb.Generation > meta.sb.Generation || x.sb.Epoch > meta.sb.Epoch {
			return &api.Error{
				Code: api.ESTATE, Op: opActivate, Device: x.dev.Path(),
				Detail: fmt.Sprintf("drive %d is of generation %d, epoch %d, but the metadata drive %s of generation %d, epoch %d only: "+
					"that is an old copy of the metadata drive; give the right one",
					x.sb.Slot, x.sb.Generation, x.sb.Epoch, meta.dev.Path(), meta.sb.Generation, meta.sb.Epoch),
			}
		}
		if lag := meta.sb.Epoch - x.sb.Epoch; lag > maxLag && !force {
			return &api.Error{
				Code: api.ESTATE, Op: opActivate, Device: x.dev.Path(),
				Detail: fmt.Sprintf("drive %d missed %d activations: it is an old copy, or failed them; give the right one, "+
					"or take it as it is with --force: its logs may lack records", x.sb.Slot, lag),
			}
		}
	}
	if len(m.absent) > 0 && !force {
		return api.Errorf(api.ESTATE, opActivate, "missing: %s; --force activates it without, read-only%s", m.absentText(), clues)
	}
	return nil
}

func (m *members) absentText() string {
	names := make([]string, len(m.absent))
	for i, e := range m.absent {
		names[i] = describeDrive(e)
	}
	return strings.Join(names, ", ")
}

// finishDestroy wipes what a crash between a destruction and its wiping left,
// the metadata drive last. That drive alone says that the pool is destroyed.
func (m *members) finishDestroy(ctx context.Context) error {
	meta := m.meta()
	if meta == nil || meta.sb.State != omf.StateDestroyed || meta.sb.Generation != m.sb.Generation {
		return nil
	}
	wipe := func(x *member) error {
		return ioError(opActivate, x.dev, wipeSuperblocks(ctx, x.dev, ownDrive(x.sb).EndCopy))
	}
	for i := range m.list {
		if x := &m.list[i]; x != meta {
			if err := wipe(x); err != nil {
				return err
			}
		}
	}
	if err := wipe(meta); err != nil {
		return err
	}
	return &api.Error{Code: api.ENOENT, Op: opActivate, Device: meta.dev.Path(), Detail: "the pool was destroyed"}
}

// fit compares a device with its entry in the drive table, and takes a larger
// device into use if asked to.
func fit(e *omf.Drive, d *bdev.Drive, resize bool) error {
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
