package check

import (
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// drive is an entry of the drive table with how the drive is divided:
//
//	| head zones | zones for objects | rest |
//
// The head holds the first two superblock copies and, on the metadata drive,
// both metadata logs. The rest, which is no whole zone, holds the third copy.
type drive struct {
	entry omf.Drive
	dev   *device // nil: it was not given
	zone  int64   // bytes
	zones uint64  // all, the head included
	head  uint64  // zones

	live uint64 // zones of objects
}

// maxZones bounds a drive's zones: what lies behind is rest.
const maxZones = 1 << 31

// divide works out how each drive is divided. It is false when that makes no
// sense or the metadata is not there.
func (c *checker) divide() bool {
	c.bySlot = make(map[uint16]*drive)
	good := true
	for _, e := range c.sb.Drives {
		if e.State != omf.DriveOnline {
			continue
		}
		d := &drive{entry: e, dev: c.deviceAt(int(e.Slot)), zone: 1 << e.ZoneLog2}
		c.bySlot[e.Slot] = d
		end := int64(omf.SecondCopyOffset + omf.SuperblockSize)
		if e.Slot == c.sb.MetaSlot {
			for _, l := range c.sb.Logs {
				end = max(end, int64(l.Start+uint64(l.Blocks))*blockSize)
			}
		}
		d.zones = min(uint64(e.EndCopy/d.zone), maxZones)
		d.head = uint64((end + d.zone - 1) / d.zone)
		switch {
		case e.Class > uint8(api.ClassStaging):
			c.problem(Problem{
				Code: Geometry, Device: d.path(),
				Text: fmt.Sprintf("drive %d is of media class %d, which there is not", e.Slot, e.Class),
			})
			good = false
		case d.head >= d.zones:
			c.problem(Problem{
				Code: Geometry, Device: d.path(),
				Text: fmt.Sprintf("drive %d of %d bytes has no zone of %d bytes behind the metadata", e.Slot, e.Size, d.zone),
			})
			good = false
		case d.dev == nil:
			c.problem(Problem{
				Code: DeviceMissing,
				Text: fmt.Sprintf("drive %d (%v) of the pool is not among the devices", e.Slot, e.UUID),
			})
		case d.dev.size < e.Size:
			c.problem(Problem{
				Code: DeviceSmall, Device: d.path(),
				Text: fmt.Sprintf("the device has %d bytes, recorded are %d", d.dev.size, e.Size),
			})
		case d.dev.size > e.Size:
			c.note(Problem{
				Code: DeviceGrown, Device: d.path(),
				Text: fmt.Sprintf("the device has %d bytes, %d of them in use; resize takes in the rest", d.dev.size, e.Size),
			})
		}
	}
	return c.metadataPlace() && good
}

// deviceAt returns the device of a slot, or nil.
func (c *checker) deviceAt(slot int) *device {
	for _, d := range c.devices {
		if d.slot == slot {
			return d
		}
	}
	return nil
}

func (d *drive) path() string {
	if d == nil || d.dev == nil {
		return ""
	}
	return d.dev.path
}

// metadataPlace checks where the metadata logs lie: behind the superblocks, and
// apart.
func (c *checker) metadataPlace() bool {
	d := c.bySlot[c.sb.MetaSlot]
	if d == nil || d.dev == nil {
		c.problem(Problem{
			Code: MetadataMissing,
			Text: fmt.Sprintf("the metadata lies on drive %d, which is not there", c.sb.MetaSlot),
		})
		return false
	}
	a, b := c.sb.Logs[0], c.sb.Logs[1]
	if a.Start > b.Start {
		a, b = b, a
	}
	const first = (omf.SecondCopyOffset + omf.SuperblockSize) / blockSize
	switch {
	case a.Start < first || a.Start+uint64(a.Blocks) > b.Start,
		int64(b.Start+uint64(b.Blocks))*blockSize > d.entry.EndCopy:
		c.problem(Problem{
			Code: Geometry, Device: d.path(),
			Text: fmt.Sprintf("the metadata logs, %d blocks at block %d and %d at %d, overlap each other or the superblocks",
				a.Blocks, a.Start, b.Blocks, b.Start),
		})
		return false
	case a.Birth == b.Birth || a.Birth == 0 || b.Birth == 0:
		c.problem(Problem{
			Code: Geometry, Device: d.path(),
			Text: fmt.Sprintf("the metadata logs have birth stamps %#x and %#x: want two different ones", uint64(a.Birth), uint64(b.Birth)),
		})
		return false
	}
	return true
}

// blocks returns a zone's length in blocks.
func (d *drive) zoneBlocks() uint64 { return uint64(d.zone) / blockSize }

// wholeZones says whether an extent is a run of whole zones, and inside whether
// they are zones for objects.
func (d *drive) wholeZones(e layout.Extent) (whole, inside bool) {
	zb := d.zoneBlocks()
	whole = e.Start%zb == 0 && uint64(e.Blocks)%zb == 0
	return whole, e.Start >= d.head*zb && e.End() <= d.zones*zb
}

// space accounts for the drive.
func (d *drive) space() Space {
	return Space{
		Total:     d.entry.Size,
		Overhead:  int64(d.head) * d.zone,
		Live:      int64(d.live) * d.zone,
		Remainder: d.entry.Size - int64(d.zones)*d.zone,
		Free:      (int64(d.zones) - int64(d.head) - int64(d.live)) * d.zone,
	}
}

// account lists the pool's drives and adds them up, as far as they are divided.
func (c *checker) account() {
	c.report.Space, c.report.Drives = Space{}, nil
	for _, e := range c.sb.Drives {
		if e.State != omf.DriveOnline {
			continue
		}
		r := DriveReport{UUID: e.UUID.String(), Slot: e.Slot, Class: api.Class(e.Class), Metadata: e.Slot == c.sb.MetaSlot}
		if dev := c.deviceAt(int(e.Slot)); dev != nil {
			r.Path, r.Generation, r.Epoch = dev.path, dev.best.Generation, dev.best.Epoch
		}
		if d := c.bySlot[e.Slot]; d != nil && d.dev != nil {
			r.Space = d.space()
			c.report.Space.add(r.Space)
		}
		c.report.Drives = append(c.report.Drives, r)
	}
}
