package mpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool/omf"
)

// readAt reads into a buffer of our own that stays ours if the context ends
// the wait, and copies it out.
func readAt(ctx context.Context, d *bdev.Drive, p []byte, off int64) error {
	buf := bdev.AllocBuffer(len(p))
	b := bdev.Batch{
		Ops:      []*bdev.Op{{Code: bdev.OpRead, Offset: off, Buf: buf}},
		Detached: func() { bdev.FreeBuffer(buf) },
	}
	err := d.Run(ctx, &b)
	if errors.Is(err, bdev.ErrDetached) {
		return err
	}
	copy(p, buf)
	bdev.FreeBuffer(buf)
	return err
}

// writeAt writes a copy of p.
func writeAt(ctx context.Context, d *bdev.Drive, p []byte, off int64) error {
	buf := bdev.AllocBuffer(len(p))
	copy(buf, p)
	b := bdev.Batch{
		Ops:      []*bdev.Op{{Code: bdev.OpWrite, Offset: off, Buf: buf}},
		Detached: func() { bdev.FreeBuffer(buf) },
	}
	err := d.Run(ctx, &b)
	if !errors.Is(err, bdev.ErrDetached) {
		bdev.FreeBuffer(buf)
	}
	return err
}

// writeDurably writes and flushes.
func writeDurably(ctx context.Context, d *bdev.Drive, p []byte, off int64) error {
	t := d.Ticket()
	if err := writeAt(ctx, d, p, off); err != nil {
		return err
	}
	return d.Flush(ctx, t)
}

// copies says something of each copy of a superblock.
type copies [omf.Copies]bool

// superblocks is what was read of one drive's three copies.
type superblocks struct {
	newest  *omf.Superblock // nil: none is valid
	right   copies          // those that are known to be as new as that
	damaged int             // copies that begin with the magic and are not valid, or cannot be read
	err     error           // why there is no newest
}

// readSuperblocks reads a drive's copies. The third, which is written last and so
// is never newer, is looked at only when neither of the others is valid: a drive
// that lags does not know that what was its end may hold an object's bytes now,
// which are whatever a client wanted them to be.
func readSuperblocks(ctx context.Context, d *bdev.Drive) (superblocks, error) {
	var s superblocks
	size := d.Geometry().Size &^ (omf.SuperblockSize - 1)
	if size < omf.SecondCopyOffset+2*omf.SuperblockSize {
		s.err = omf.ErrNoSuperblock
		return s, nil
	}
	for i, off := range [omf.Copies]int64{0, omf.SecondCopyOffset, size - omf.SuperblockSize} {
		if i == 2 && s.newest != nil {
			break
		}
		b := make([]byte, omf.SuperblockSize)
		if err := readAt(ctx, d, b, off); err != nil {
			if ctx.Err() != nil {
				return s, err
			}
			s.note(err)
			continue
		}
		sb, err := omf.Decode(b)
		if err != nil {
			s.note(err)
			continue
		}
		if s.newest == nil || sb.Generation > s.newest.Generation {
			s.newest, s.right = sb, copies{}
		}
		s.right[i] = sb.Generation == s.newest.Generation
	}
	if s.newest == nil && s.damaged == 1 && !errors.Is(s.err, omf.ErrVersion) {
		// Copies are written and wiped one after another, so this is what a
		// creation or a destruction that was cut off leaves.
		s.err = fmt.Errorf("%w: one damaged copy and no other: a creation or destruction was cut off (%w)", omf.ErrNoSuperblock, s.err)
	}
	return s, nil
}

// note remembers the most telling error: damage before absence.
func (s *superblocks) note(err error) {
	if !errors.Is(err, omf.ErrNoSuperblock) {
		s.damaged++
	}
	if s.err == nil || errors.Is(s.err, omf.ErrNoSuperblock) {
		s.err = err
	}
}

// ownDrive returns the entry of the drive that the superblock lies on; decoding
// has made sure that there is one.
func ownDrive(sb *omf.Superblock) omf.Drive {
	for _, d := range sb.Drives {
		if d.Slot == sb.Slot {
			return d
		}
	}
	return omf.Drive{}
}

// writeSuperblocks makes a superblock durable on one drive, one copy after the
// other, so that at any moment two of three are whole. The change is committed
// when the first is durable.
func writeSuperblocks(ctx context.Context, d *bdev.Drive, sb omf.Superblock) error {
	return writeCopies(ctx, d, sb, copies{true, true, true})
}

// writeCopies makes some copies durable, one after the other.
func writeCopies(ctx context.Context, d *bdev.Drive, sb omf.Superblock, which copies) error {
	offsets := [omf.Copies]int64{0, omf.SecondCopyOffset, ownDrive(&sb).EndCopy}
	b := make([]byte, omf.SuperblockSize)
	for i, off := range offsets {
		if !which[i] {
			continue
		}
		sb.Copy = uint32(i)
		if err := sb.Encode(b); err != nil {
			return err
		}
		if err := writeDurably(ctx, d, b, off); err != nil {
			return fmt.Errorf("write superblock copy %d: %w", i, err)
		}
	}
	return nil
}

// wipeSuperblocks overwrites all copies with zeros.
func wipeSuperblocks(ctx context.Context, d *bdev.Drive, ends ...int64) error {
	b := make([]byte, omf.SuperblockSize)
	size := d.Geometry().Size &^ (omf.SuperblockSize - 1)
	for _, off := range append([]int64{0, omf.SecondCopyOffset, size - omf.SuperblockSize}, ends...) {
		if off < 0 || off+omf.SuperblockSize > size {
			continue
		}
		if err := writeDurably(ctx, d, b, off); err != nil {
			return fmt.Errorf("wipe superblock at %d: %w", off, err)
		}
	}
	return nil
}

// superblockError turns a reason for having no superblock into an api error.
func superblockError(op, device string, err error) error {
	e := &api.Error{Op: op, Device: device, Err: err}
	switch {
	case errors.Is(err, omf.ErrNoSuperblock):
		e.Code, e.Detail = api.ENOENT, "the device belongs to no pool"
	case errors.Is(err, omf.ErrVersion):
		e.Code, e.Detail = api.ENOTSUP, "the pool was made by a newer version"
	case errors.Is(err, omf.ErrBadSuperblock):
		e.Code, e.Detail = api.ECORRUPT, "no copy of the superblock is whole"
	default:
		e.Code = api.EIO
	}
	return e
}
