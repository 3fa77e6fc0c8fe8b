package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool/omf"
)

// The states of a pool that a scan finds.
const (
	PoolInactive   = "inactive"   // all of it is there; nothing says that it is active
	PoolIncomplete = "incomplete" // a drive is missing
	PoolGone       = "destroyed"  // it was destroyed, the wiping did not end
	PoolDamaged    = "damaged"    // superblock copies are lost, or a drive is there twice
)

// The states of a drive that a scan finds.
const (
	DriveFound     = "online"
	DriveMissing   = "missing"   // no device carries it
	DriveDamaged   = "damaged"   // copies of its superblock are lost as by no crash
	DriveDuplicate = "duplicate" // another device carries it, too
)

// Found is a pool as its superblocks say it is.
type Found struct {
	Name   string // "": no superblock is valid
	UUID   string
	State  string
	Text   string // what is wrong with it, or ""
	Drives []FoundDrive
}

// FoundDrive is a drive of a pool, or a device that carries one.
type FoundDrive struct {
	Path  string // "": missing
	UUID  string
	Class api.Class
	Slot  uint16
	State string
	Size  int64 // bytes in use
}

// Unread is a device that could not be looked at.
type Unread struct {
	Path string
	Err  error
}

// Scan looks at the superblocks of devices and says which pools they carry, by
// name and UUID. It takes a device from nobody and does not mind who has it: of
// an active pool it may see superblocks that are being written. Devices that
// cannot be read are listed apart. The error is the context's.
func Scan(ctx context.Context, paths []string, o Options) (found []Found, unread []Unread, err error) {
	if o.Open == nil {
		o.Open = func(ctx context.Context, path string) (Source, error) {
			return openSource(ctx, opScan, path, bdev.OpenOptions{ReadOnly: true, Shared: true, Engine: bdev.Pread})
		}
	}
	o = o.withDefaults(opScan)
	var list []*device
	for _, path := range paths {
		if err := ended(ctx); err != nil {
			return nil, nil, err
		}
		d, err := glance(ctx, path, &o)
		switch {
		case ctx.Err() != nil:
			return nil, nil, ended(ctx)
		case err != nil:
			unread = append(unread, Unread{Path: path, Err: err})
		default:
			list = append(list, d)
		}
	}
	for _, group := range groups(list) {
		found = append(found, describePool(group))
	}
	for _, d := range list {
		if d.best == nil && d.lost() {
			found = append(found, Found{
				State: PoolDamaged, Text: fmt.Sprintf("%s has no valid superblock: %v", d.path, d.why()),
				Drives: []FoundDrive{{Path: d.path, State: DriveDamaged, Size: d.size}},
			})
		}
	}
	slices.SortStableFunc(found, func(a, b Found) int {
		return strings.Compare(a.Name+"\x00"+a.UUID, b.Name+"\x00"+b.UUID)
	})
	return found, unread, nil
}

// glance reads a device's superblock copies. It is an error when it has none
// because the device cannot be read.
func glance(ctx context.Context, path string, o *Options) (*device, error) {
	src, err := o.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	d := newDevice(src)
	d.readCopies()
	if err := src.Close(); err != nil {
		return nil, err
	}
	for i := range d.sb {
		s := &d.sb[i]
		if d.best == nil && s.err != nil && !errors.Is(s.err, errOutside) && !s.content() {
			return nil, s.err
		}
	}
	return d, nil
}

// content says whether a copy's error is of what was read.
func (s *sbCopy) content() bool {
	return s.missing() || errors.Is(s.err, omf.ErrBadSuperblock) || errors.Is(s.err, omf.ErrVersion)
}

// lost says whether the device has carried a pool, and still should. Copies are
// written and wiped one after another: a damaged one alone is what a creation
// or destruction leaves that was cut off.
func (d *device) lost() bool {
	damaged := 0
	for i := range d.sb {
		if errors.Is(d.sb[i].err, omf.ErrVersion) {
			return true
		}
		if errors.Is(d.sb[i].err, omf.ErrBadSuperblock) {
			damaged++
		}
	}
	return damaged > 1
}

// why returns why a device's first superblock that is not missing is not valid.
func (d *device) why() error {
	for i := range d.sb {
		if s := &d.sb[i]; s.err != nil && !s.missing() {
			return s.err
		}
	}
	return d.sb[0].err
}

// groups puts devices of one pool together, in the order in which they came.
func groups(list []*device) [][]*device {
	var g [][]*device
	at := make(map[uuid.UUID]int)
	for _, d := range list {
		if d.best == nil {
			continue
		}
		i, ok := at[d.best.Pool]
		if !ok {
			i = len(g)
			at[d.best.Pool], g = i, append(g, nil)
		}
		g[i] = append(g[i], d)
	}
	return g
}

// describePool compares the superblocks of one pool's devices.
func describePool(list []*device) Found {
	c := newChecker(list, Options{})
	defer c.pages.free()
	c.sb = newest(list)
	f := Found{Name: c.sb.Name, UUID: c.sb.Pool.String(), State: PoolInactive}
	state := make(map[*device]string)
	for _, d := range list {
		before := len(c.report.Problems)
		c.member(d)
		state[d] = DriveFound
		for _, p := range c.report.Problems[before:] {
			state[d] = DriveDamaged
			if p.Code == DeviceTwice {
				state[d] = DriveDuplicate
			}
			if f.State != PoolDamaged {
				f.State, f.Text = PoolDamaged, fmt.Sprintf("%s: %s", p.Device, p.Text)
			}
		}
	}
	var missing []string
	for i := range c.sb.Drives {
		e := &c.sb.Drives[i]
		if e.State != omf.DriveOnline {
			continue
		}
		drive := FoundDrive{UUID: e.UUID.String(), Class: api.Class(e.Class), Slot: e.Slot, State: DriveMissing, Size: e.Size}
		if c.deviceAt(int(e.Slot)) == nil {
			missing = append(missing, fmt.Sprintf("drive %d (%s)", e.Slot, drive.UUID))
			f.Drives = append(f.Drives, drive)
		}
		for _, d := range list {
			if d.best.Drive == e.UUID && d.best.Slot == e.Slot {
				drive.Path, drive.State = d.path, state[d]
				f.Drives = append(f.Drives, drive)
			}
		}
	}
	switch {
	case c.sb.State == omf.StateDestroyed:
		f.State, f.Text = PoolGone, "the pool was destroyed; activation wipes what is left of it"
	case len(missing) > 0:
		f.State, f.Text = PoolIncomplete, strings.Join(missing, ", ")+" not found"
		if c.deviceAt(int(c.sb.MetaSlot)) == nil {
			f.Text += "; there is no pool without its metadata drive, " + strconv.Itoa(int(c.sb.MetaSlot))
			if c.sb.Generation == 1 {
				f.Text += ": a creation that was cut off leaves this"
			}
		}
	}
	return f
}

// Find returns the devices among the given ones that carry the pool of a name or
// UUID, each drive's, and also what [Scan] says of them. Errors: ENOENT, ESTATE
// (several pools of that name), EPERM (it may look at no device), the context's.
func Find(ctx context.Context, nameOrUUID string, paths []string, o Options) ([]string, []Unread, error) {
	pools, unread, err := Scan(ctx, paths, o)
	if err != nil {
		return nil, nil, err
	}
	var match []Found
	for _, f := range pools {
		if f.UUID != "" && (f.Name == nameOrUUID || strings.EqualFold(f.UUID, nameOrUUID)) {
			match = append(match, f)
		}
	}
	if len(match) > 1 {
		// What is left of a destroyed pool does not take a name away.
		match = slices.DeleteFunc(match, func(f Found) bool { return f.State == PoolGone })
	}
	switch looked := len(paths) - len(unread); {
	case len(match) == 1:
	case len(match) > 1:
		return nil, unread, api.Errorf(api.ESTATE, "", "%d pools are named %q; give the UUID, %s or %s", len(match), nameOrUUID, match[0].UUID, match[1].UUID)
	case looked == 0 && len(unread) > 0:
		return nil, unread, &api.Error{
			Code: api.CodeOf(unread[0].Err), Err: unread[0].Err,
			Detail: fmt.Sprintf("none of %d devices could be looked at for pool %q", len(unread), nameOrUUID),
		}
	default:
		return nil, unread, api.Errorf(api.ENOENT, "", "no pool %q on the %d devices that were looked at; if it lies in regular files, name them too", nameOrUUID, looked)
	}
	var devices []string
	for _, d := range match[0].Drives {
		if d.Path != "" {
			devices = append(devices, d.Path)
		}
	}
	return devices, unread, nil
}
