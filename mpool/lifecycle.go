package mpool

import (
	"context"
	"os"
	"path/filepath"
	"sort"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/omf"
)

// blockDevices lists the host's block devices.
func blockDevices() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil, &api.Error{Code: api.EIO, Op: opActivate, Detail: "cannot list block devices", Err: err}
	}
	var list []string
	for _, e := range entries {
		// Devices without a medium, such as unused loop devices, have size 0.
		size, err := os.ReadFile(filepath.Join("/sys/class/block", e.Name(), "size"))
		if err == nil && string(size) != "0\n" {
			list = append(list, "/dev/"+e.Name())
		}
	}
	sort.Strings(list)
	return list, nil
}

// Rename gives the pool another name. It is committed when the first copy of
// the superblock is durable. Errors: EINVAL, EROFS, EUNKNOWN.
func (p *Pool) Rename(ctx context.Context, name string) error {
	const op = "pool rename"
	if err := CheckName(name); err != nil {
		return err
	}
	return p.change(ctx, op, func() error {
		if err := p.writable(op); err != nil {
			return err
		}
		return p.changeSuperblock(op, func(sb *omf.Superblock) { sb.Name = name })
	})
}

// changeSuperblock makes a change of the superblock durable. The caller is in
// life.
func (p *Pool) changeSuperblock(op string, change func(*omf.Superblock)) error {
	next := *p.sb.Load()
	change(&next)
	next.Generation++
	d := p.byslot[next.MetaSlot]
	if err := writeSuperblocks(context.Background(), d.dev, next); err != nil {
		// Which copies are old and which are new is unknown until the next
		// activation reads them.
		p.meta.fail(err)
		return &api.Error{
			Code: api.EUNKNOWN, Op: op, Device: d.dev.Path(), Err: err,
			Detail: "the superblock could not be written whole; the pool is read-only now",
		}
	}
	p.sb.Store(&next)
	return nil
}

// Destroy deactivates the pool and wipes its superblocks. EBUSY while handles
// are in use. It has happened when the first copy says so durably.
func (p *Pool) Destroy(ctx context.Context) error {
	const op = "pool destroy"
	return p.change(ctx, op, func() error {
		if err := p.writable(op); err != nil {
			return err
		}
		if err := p.retire(false); err != nil {
			return err
		}
		if err := p.changeSuperblock(op, func(sb *omf.Superblock) { sb.State = omf.StateDestroyed }); err != nil {
			p.closed.Store(false) // to be deactivated, read-only
			return err
		}
		return p.shut(func(d *drive) error { return wipeSuperblocks(context.Background(), d.dev, d.entry.EndCopy) })
	})
}
