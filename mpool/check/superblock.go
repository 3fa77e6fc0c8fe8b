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
	newest bool            // of the generation that counts
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
		if d.best != nil && c.sb == nil {
			c.sb = d.best
		}
	}
	if c.sb == nil {
		for _, d := range c.devices {
			c.noSuperblock(d)
		}
		return false, nil
	}
	for _, d := range c.devices {
		if d.best != nil && d.best.Pool == c.sb.Pool && d.best.Generation > c.sb.Generation {
			c.sb = d.best
		}
	}
	c.report.Pool, c.report.UUID, c.report.Epoch = c.sb.Name, c.sb.Pool.String(), c.sb.Epoch
	for _, d := range c.devices {
		c.member(d)
	}
	return c.features(), nil
}

// noSuperblock reports a device without a valid copy.
func (c *checker) noSuperblock(d *device) {
	for i := range d.sb {
		if !d.sb[i].missing() {
			c.problem(Problem{
				Code: codeOfCopy(&d.sb[i]), Device: d.path, Offset: d.sb[i].offset,
				Text: fmt.Sprintf("superblock copy %d: %v", i, d.sb[i].err),
			})
		}
	}
	c.problem(Problem{Code: SuperblockNone, Device: d.path, Text: "the device has no valid superblock"})
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
		s.newest = s.sb != nil && s.sb.Pool == c.sb.Pool && s.sb.Generation == c.sb.Generation
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
		if e.UUID != own.Drive {
			continue
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
// the newest generation has none behind it that is, unless something happened
// that no crash does. Only the first may be torn while all others are whole.
func (c *checker) judge(d *device, s *sbCopy) {
	if s.sb != nil && s.newest {
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
	}
	if explained && p.Code != SuperblockVersion {
		p.Text += "; a crash leaves it so, activation writes it anew"
		c.note(p)
		return
	}
	c.problem(p)
}

// newestBehind says whether a copy behind a place is of the newest generation.
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
		c.problem(at)
		return
	}
	want := *c.sb
	want.Copy, want.Drive, want.Slot = s.sb.Copy, s.sb.Drive, s.sb.Slot
	var a, b [omf.SuperblockSize]byte
	if want.Encode(a[:]) == nil && s.sb.Encode(b[:]) == nil && bytes.Equal(a[:], b[:]) {
		return
	}
	at.Code = SuperblockDiffers
	at.Text = fmt.Sprintf("superblock copy %d has generation %d and is not the same as the others of it", s.place, s.sb.Generation)
	c.problem(at)
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
