package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/mpool/omf"
)

// sbCopy is one of a device's superblock copies as it was found.
type sbCopy struct {
	place  int // 0, 1, 2
	offset int64
	sb     *omf.Superblock // nil: not valid
	err    error           // why not
	newest bool            // of the highest generation on its drive
	code   string          // of what was found wrong with it, or ""
	text   string          // its words
}

// missing says whether there is nothing that looks like a superblock.
func (s *sbCopy) missing() bool { return errors.Is(s.err, omf.ErrNoSuperblock) }

func (d *device) readCopy(place int, offset int64) {
	c := &d.sb[place]
	*c = sbCopy{place: place, offset: offset}
	b := make([]byte, omf.SuperblockSize)
	if c.err = d.read(b, offset); c.err == nil {
		c.sb, c.err = omf.Decode(b)
	}
	if c.err != nil {
		c.sb = nil
	}
	if c.sb != nil && (d.best == nil || c.sb.Generation > d.best.Generation) {
		d.best = c.sb
	}
}

// readCopies reads the three. The third is where the newest of the others says,
// else at the device's end.
func (d *device) readCopies() {
	d.readCopy(0, 0)
	d.readCopy(1, omf.SecondCopyOffset)
	end := d.size - omf.SuperblockSize
	if d.best != nil {
		if e := ownEntry(d.best); e != nil {
			end = e.EndCopy
		}
	}
	d.readCopy(2, end)
}

// ownEntry returns the drive table's entry of the drive that a copy lies on.
func ownEntry(sb *omf.Superblock) *omf.Drive {
	for i := range sb.Drives {
		if sb.Drives[i].Slot == sb.Slot {
			return &sb.Drives[i]
		}
	}
	return nil
}

// superblocks finds the newest superblock of the pool and compares all copies
// with it. It is false when the check cannot go on.
func (c *checker) superblocks(ctx context.Context) (bool, error) {
	for _, d := range c.devices {
		if err := ended(ctx); err != nil {
			return false, err
		}
		d.readCopies()
	}
	if c.sb = newest(c.devices); c.sb == nil {
		for _, d := range c.devices {
			c.noSuperblock(d)
		}
		return false, nil
	}
	c.report.Pool, c.report.UUID, c.report.Epoch = c.sb.Name, c.sb.Pool.String(), c.sb.Epoch
	for _, d := range c.devices {
		c.member(d)
	}
	return c.features(), nil
}

// newest returns the newest superblock of the pool that the first device with
// one belongs to. Of several of one generation, which should be the same, the
// metadata drive's counts, where changes begin.
func newest(devices []*device) *omf.Superblock {
	var sb *omf.Superblock
	for _, d := range devices {
		switch b := d.best; {
		case b == nil || sb != nil && b.Pool != sb.Pool:
		case sb == nil || b.Generation > sb.Generation,
			b.Generation == sb.Generation && b.Slot == b.MetaSlot && sb.Slot != sb.MetaSlot:
			sb = b
		}
	}
	return sb
}

// noSuperblock reports a device without a valid copy. The destruction of a pool
// wipes the other drives before the metadata drive.
func (c *checker) noSuperblock(d *device) {
	report := c.problem
	if c.sb != nil && c.sb.State == omf.StateDestroyed {
		report = c.note
	}
	for i := range d.sb {
		if !d.sb[i].missing() {
			report(Problem{
				Code: codeOfCopy(&d.sb[i]), Device: d.path, Offset: d.sb[i].offset,
				Text: fmt.Sprintf("superblock copy %d: %v", i, d.sb[i].err),
			})
		}
	}
	report(Problem{Code: SuperblockNone, Device: d.path, Text: "the device has no valid superblock"})
}

func codeOfCopy(s *sbCopy) string {
	switch {
	case errors.Is(s.err, omf.ErrVersion):
		return SuperblockVersion
	case s.missing():
		return SuperblockMissing
	default:
		return SuperblockDamaged
	}
}

// member checks a device's copies against the newest superblock of the pool.
func (c *checker) member(d *device) {
	switch {
	case d.best == nil:
		c.noSuperblock(d)
		return
	case d.best.Pool != c.sb.Pool:
		c.problem(Problem{
			Code: DeviceForeign, Device: d.path,
			Text: fmt.Sprintf("the device belongs to pool %q (%v)", d.best.Name, d.best.Pool),
		})
		return
	}
	if c.seat(d); d.slot < 0 {
		return
	}
	if e := c.entry(d.slot); e != nil && d.sb[2].offset != e.EndCopy {
		d.readCopy(2, e.EndCopy)
	}
	for i := range d.sb {
		s := &d.sb[i]
		s.newest = s.sb != nil && s.sb.Pool == c.sb.Pool && s.sb.Generation == d.best.Generation
		if s.sb != nil {
			c.report.Superblocks++
		}
	}
	for i := range d.sb {
		c.judge(d, &d.sb[i])
	}
}

// seat finds the device's place in the drive table.
func (c *checker) seat(d *device) {
	own := d.best
	for i := range c.sb.Drives {
		e := &c.sb.Drives[i]
		if e.UUID != own.Drive || e.Slot != own.Slot {
			continue
		}
		if e.State != omf.DriveOnline {
			c.problem(Problem{
				Code: DeviceForeign, Device: d.path,
				Text: fmt.Sprintf("the device was drive %d of the pool, which has left it", e.Slot),
			})
			return
		}
		for _, other := range c.devices {
			if other != d && other.slot == int(e.Slot) {
				c.problem(Problem{
					Code: DeviceTwice, Device: d.path,
					Text: fmt.Sprintf("%s and this are the same drive %d of the pool, or copies of it", other.path, e.Slot),
				})
				return
			}
		}
		d.slot = int(e.Slot)
		return
	}
	c.problem(Problem{
		Code: DeviceForeign, Device: d.path,
		Text: fmt.Sprintf("the pool's drive table does not have drive %v", own.Drive),
	})
}

// entry returns a slot's entry of the drive table, or nil.
func (c *checker) entry(slot int) *omf.Drive {
	for i := range c.sb.Drives {
		if int(c.sb.Drives[i].Slot) == slot {
			return &c.sb.Drives[i]
		}
	}
	return nil
}

// judge says what is wrong with one copy. Copies are written in the order of
// their places, each durable before the next is begun: a copy that is not of
// its drive's newest generation has none behind it that is, unless something
// happened that no crash does. Only the first may be torn while all others are
// whole. A change is made on the metadata drive first, so each other drive may
// be behind.
func (c *checker) judge(d *device, s *sbCopy) {
	behind := d.best.Generation < c.sb.Generation
	if s.newest && !behind {
		c.compare(d, s)
		return
	}
	explained := !d.newestBehind(s.place) || c.sb.State == omf.StateDestroyed ||
		s.sb == nil && !s.missing() && !d.validBefore(s.place)
	p := Problem{Device: d.path, Offset: s.offset}
	switch {
	case s.sb == nil:
		p.Code = codeOfCopy(s)
		p.Text = fmt.Sprintf("superblock copy %d: %v", s.place, s.err)
	case s.sb.Pool != c.sb.Pool:
		p.Code, explained = SuperblockForeign, false
		p.Text = fmt.Sprintf("superblock copy %d is of another pool, %q (%v)", s.place, s.sb.Name, s.sb.Pool)
	default:
		p.Code = SuperblockOlder
		p.Text = fmt.Sprintf("superblock copy %d has generation %d; the newest is %d", s.place, s.sb.Generation, c.sb.Generation)
		switch {
		case behind && d.slot == int(c.sb.MetaSlot):
			explained = false
			p.Text += ", on a drive that is written later than this one; this may be an old image of the metadata drive"
		case s.sb.Epoch > c.sb.Epoch:
			explained, c.fork = false, true
			p.Text += fmt.Sprintf(", and its epoch is %d, the newest one's %d", s.sb.Epoch, c.sb.Epoch)
		case s.newest:
			explained = true
		}
	}
	explained = explained && p.Code != SuperblockVersion
	if explained {
		p.Text += "; a crash leaves it so, activation writes it anew"
	}
	if s.code, s.text = p.Code, p.Text; explained {
		c.note(p)
		return
	}
	c.problem(p)
}

// newestBehind says whether a copy behind a place is of the drive's newest
// generation.
func (d *device) newestBehind(place int) bool {
	for i := place + 1; i < len(d.sb); i++ {
		if d.sb[i].newest {
			return true
		}
	}
	return false
}

// validBefore says whether a copy before a place is valid.
func (d *device) validBefore(place int) bool {
	for i := range place {
		if d.sb[i].sb != nil {
			return true
		}
	}
	return false
}

// compare checks a copy of the newest generation: all are the same but for
// where they lie.
func (c *checker) compare(d *device, s *sbCopy) {
	at := Problem{Device: d.path, Offset: s.offset}
	if int(s.sb.Copy) != s.place || s.sb.Drive != d.best.Drive || s.sb.Slot != d.best.Slot {
		at.Code = SuperblockMisplaced
		at.Text = fmt.Sprintf("superblock copy %d says that it is copy %d of drive %d", s.place, s.sb.Copy, s.sb.Slot)
		s.code, s.text = at.Code, at.Text
		c.problem(at)
		return
	}
	if sameAs(c.sb, s.sb) {
		return
	}
	at.Code = SuperblockDiffers
	at.Text = fmt.Sprintf("superblock copy %d has generation %d and is not the same as the others of it", s.place, s.sb.Generation)
	s.code, s.text = at.Code, at.Text
	c.problem(at)
}

// sameAs says whether two superblocks say the same but for where they lie.
func sameAs(a, b *omf.Superblock) bool {
	x := *a
	x.Copy, x.Drive, x.Slot = b.Copy, b.Drive, b.Slot
	var p, q [omf.SuperblockSize]byte
	return x.Encode(p[:]) == nil && b.Encode(q[:]) == nil && bytes.Equal(p[:], q[:])
}

// features says whether this version can read the pool.
func (c *checker) features() bool {
	if f := c.sb.ROCompat &^ omf.KnownROCompat; f != 0 {
		c.note(Problem{Code: SuperblockFeatures, Text: fmt.Sprintf("the pool has features %#x that this version can only read", f)})
	}
	if c.sb.State == omf.StateDestroyed {
		c.note(Problem{Code: PoolDestroyed, Text: "the pool was destroyed; a crash cut the wiping of its superblocks off, activation goes on with it"})
		return false
	}
	return true
}
