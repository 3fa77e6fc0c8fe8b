package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Rename gives the pool another name. It is committed when the superblock is
// durable on the metadata drive. Errors: EINVAL, EROFS, EUNKNOWN.
func (p *Pool) Rename(ctx context.Context, name string) error {
	const op = "pool rename"
	if err := CheckName(op, name); err != nil {
		return err
	}
	return p.change(ctx, op, func() error {
		if err := p.writable(op); err != nil {
			return err
		}
		err := p.changeSuperblock(op, func(sb *omf.Superblock) { sb.Name = name })
		if err == nil {
			p.spread()
		}
		return err
	})
}

// changeSuperblock makes a change of the superblock durable on the metadata
// drive: then it has happened. The other drives follow in the background; one
// that fails has failed. The caller is in life.
func (p *Pool) changeSuperblock(op string, change func(*omf.Superblock)) error {
	next := *p.sb.Load()
	change(&next)
	next.Generation++
	d := p.metaDrive()
	if err := writeSuperblocks(context.Background(), d.dev, next); err != nil {
		// Which copies are old and which are new is unknown until the next
		// activation reads them.
		p.meta.fail(err)
		return &api.Error{
			Code: api.EUNKNOWN, Op: op, Device: d.path(), Err: err,
			Detail: "the superblock could not be written whole; the pool is read-only now",
		}
	}
	p.sb.Store(&next)
	return nil
}

// spread has the other drives follow the metadata drive's superblock.
func (p *Pool) spread() {
	sb := p.sb.Load()
	for _, d := range p.drives {
		if d.dev != nil && d.entry.Slot != sb.MetaSlot {
			d.mirror.follow(sb)
		}
	}
}

// Destroy deactivates the pool and wipes its superblocks, those of the metadata
// drive last. EBUSY while handles are in use. It has happened when the metadata
// drive says so durably; an error after that names what could not be wiped.
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
		return p.shut(true, func(d *drive) error { return wipeSuperblocks(context.Background(), d.dev, d.entry.EndCopy) })
	})
}
