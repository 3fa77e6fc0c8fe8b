package check

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// plan lists the writes that mend what was found, in the order in which they are
// to be done: the metadata drive's superblock copies first, as a change of the
// superblock goes. When it is not certain what is right there is none, and a note
// says why, if there is something that could be mended else.
func (c *checker) plan() []mend {
	if c.sb == nil {
		return nil
	}
	var list []mend
	for _, d := range c.devices {
		if d.slot >= 0 {
			list = append(list, c.superblockMends(d)...)
		}
	}
	slices.SortStableFunc(list, func(a, b mend) int {
		return cmp.Compare(c.order(a.dev), c.order(b.dev))
	})
	list = append(list, c.mends...)
	if len(list) == 0 {
		return nil
	}
	if why := c.uncertain(); why != "" {
		c.refuse("", "nothing was mended: "+why)
		return nil
	}
	sound := c.sound()
	refused := make(map[*device]bool)
	list = slices.DeleteFunc(list, func(m mend) bool {
		if c.known(m.dev) {
			return m.log != nil && m.log.id != 0 && !sound
		}
		if !refused[m.dev] {
			c.refuse(m.dev.path, "nothing was mended there: it is not certain which drive it is, by its superblock copies")
		}
		refused[m.dev] = true
		return true
	})
	if !sound && slices.ContainsFunc(c.mends, func(m mend) bool { return m.log.id != 0 }) {
		c.refuse("", "no log of an object was mended: the metadata that says where they lie is at fault")
	}
	return list
}

func (c *checker) refuse(device, why string) {
	c.note(Problem{Code: RepairRefused, Device: device, Text: why})
}

// order is a device's rank: the metadata drive comes first.
func (c *checker) order(d *device) int {
	if d.slot == int(c.sb.MetaSlot) {
		return -1
	}
	return d.slot
}

// uncertain says why it is not certain what is right, or "".
func (c *checker) uncertain() string {
	meta := c.deviceAt(int(c.sb.MetaSlot))
	switch {
	case c.sb.State == omf.StateDestroyed:
		return "the pool was destroyed"
	case c.sb.ROCompat&^omf.KnownROCompat != 0 || c.sb.Compat != 0 || c.found(SuperblockVersion):
		return "there is a format or a feature that this version does not know"
	case c.found(DeviceTwice):
		return "a drive is there twice; name only the device that is the pool's"
	case meta == nil:
		return "the metadata drive is not there"
	case meta.best.Generation < c.sb.Generation:
		return "the metadata drive is older than another drive"
	case c.fork:
		return "a superblock copy is older than the newest one, and of a later activation"
	case !c.known(meta):
		return "it is not certain which drive the metadata drive is, by its superblock copies"
	case !c.majority():
		return "superblock copies of the newest generation differ, and no majority says the same"
	case c.found(Geometry):
		return "the newest superblock makes no sense"
	case c.found(LogEpoch):
		return "a page was written by an activation that the newest superblock does not know of, so it is not the newest"
	case !c.tailed:
		return "there is no tail of a metadata log where the newest superblock says"
	}
	return ""
}

// known says whether it is certain which drive a device is: more than half of
// its valid copies say the same, and one of them is in its place.
func (c *checker) known(d *device) bool {
	valid, agree, placed := 0, 0, false
	for i := range d.sb {
		s := d.sb[i].sb
		if s == nil {
			continue
		}
		valid++
		if s.Pool == d.best.Pool && s.Drive == d.best.Drive && s.Slot == d.best.Slot {
			agree++
			placed = placed || int(s.Copy) == i
		}
	}
	return placed && 2*agree > valid
}

// majority says whether more than half of the copies of the newest generation,
// on all drives, are as the one that was taken.
func (c *checker) majority() bool {
	valid, agree := 0, 0
	for _, d := range c.devices {
		for i := range d.sb {
			if s := d.sb[i].sb; d.slot >= 0 && s != nil && s.Pool == c.sb.Pool && s.Generation == c.sb.Generation {
				valid++
				if sameAs(c.sb, s) {
					agree++
				}
			}
		}
	}
	return 2*agree > valid
}

// superblockMends lists the copies of a device that are to be written anew. While
// a copy is written it counts for nothing, so another valid one is on the device
// at any moment, if there was one.
func (c *checker) superblockMends(d *device) []mend {
	var todo, later []int
	valid := 0
	for i := range d.sb {
		if d.sb[i].sb != nil {
			valid++
		}
	}
	for i := range d.sb {
		s := &d.sb[i]
		switch {
		case !mendable(s.code) || s.offset < 0 || s.offset > d.size-omf.SuperblockSize:
		case s.sb != nil && valid == 1 && len(todo) == 0:
			later = append(later, i)
		default:
			todo = append(todo, i)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	var list []mend
	for _, i := range append(todo, later...) {
		sb := *c.sb
		sb.Copy, sb.Drive, sb.Slot = uint32(i), d.best.Drive, d.best.Slot
		b := make([]byte, omf.SuperblockSize)
		if sb.Encode(b) != nil {
			continue // it was decoded, so it can be encoded
		}
		s := &d.sb[i]
		list = append(list, mend{
			findings: []Problem{{Code: s.code, Device: d.path, Offset: s.offset, Text: s.text}},
			dev:      d, offset: s.offset, content: b,
		})
	}
	return list
}

// mendable says whether what was found of a superblock copy may be written over.
func mendable(code string) bool {
	switch code {
	case SuperblockMissing, SuperblockDamaged, SuperblockOlder, SuperblockDiffers, SuperblockMisplaced:
		return true
	}
	return false
}

// sound says whether the metadata is without a fault. An object's log lies where
// it says.
func (c *checker) sound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for code := range c.seen { // order does not matter: all are looked at
		family, _, _ := strings.Cut(code, "-")
		if !slices.Contains([]string{"superblock", "device", "data", "log"}, family) {
			return false
		}
	}
	return true
}

// groupAbove is a group that no page of a log knows as durable.
const groupAbove = 1 << 62

// emptied makes a log that counts for nothing an empty one, by a tail that is
// newer than all that it has. The other pair of slots stays as it is: whatever
// is left of the write, the log has a tail if it had one.
func emptied(s *scan, epoch uint64) mend {
	pair, best := 0, -1
	for i := range s.valid {
		p := &s.valid[i]
		if p.Group > 0 && (best < 0 || cmp.Or(cmp.Compare(p.Epoch, s.valid[best].Epoch), cmp.Compare(p.Group, s.valid[best].Group)) > 0) {
			best, pair = i, 1-i/mlog.PairPages
		}
	}
	b := make([]byte, mlog.PairPages*blockSize)
	h := mlog.Header{Flags: mlog.FlagTail, Birth: s.birth, Generation: s.generation, Epoch: epoch, Group: groupAbove}
	encodeHeader(b[:blockSize], &h)
	copy(b[blockSize:], b[:blockSize])
	return mend{
		findings: slices.Clone(s.findings), dev: s.dev, offset: s.slotOffset(pair * mlog.PairPages), log: s.logPlace, content: b,
	}
}

// encodeHeader makes an empty page of a header; see the package mlog.
func encodeHeader(b []byte, h *mlog.Header) {
	le := binary.LittleEndian
	le.PutUint32(b, mlog.Magic)
	b[4], b[5] = mlog.Version, h.Flags
	le.PutUint64(b[8:], uint64(h.Birth))
	le.PutUint64(b[16:], h.Generation)
	le.PutUint64(b[24:], h.Epoch)
	le.PutUint64(b[32:], h.Group)
	le.PutUint32(b[64:], mlog.PageCRC(b))
}
