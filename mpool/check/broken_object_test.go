package check_test

import (
	"strings"
	"testing"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

func objectBreakages() []breakage {
	// create adds an object that is like another, but for what change does.
	create := func(pick func(f *fixture) layout.ObjectID, change func(o *layout.Object)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			o := f.object(t, pick(f))
			o.ID, o.Birth = layout.NewObjectID(o.ID.Kind(), 5000), f.birth(5000)
			change(&o)
			f.record(t, func(r *omf.Record) { r.Create(&o) })
		}
	}
	empty := func(f *fixture) layout.ObjectID { return f.empty }
	log := func(f *fixture) layout.ObjectID { return f.fresh }
	const free = 5000 // a block in free space
	return []breakage{
		{"extent on no drive", create(empty, func(o *layout.Object) { o.Extent.Drive = 9 }), check.ExtentDrive, ""},
		{"extent in the head", create(empty, func(o *layout.Object) { o.Extent.Start = 16 }), check.ExtentOutside, ""},
		{"extent behind the end", create(empty, func(o *layout.Object) { o.Extent.Start = diskSize / page }), check.ExtentOutside, ""},
		{"extent over the last superblock", create(empty, func(o *layout.Object) { o.Extent.Start = diskSize/page - 16 }), check.ExtentOutside, ""},
		{"extent of half a zone", create(empty, func(o *layout.Object) { o.Extent.Start, o.Extent.Blocks = free+8, 8 }), check.ExtentZones, ""},
		{"extent too small for the checksums", create(func(f *fixture) layout.ObjectID { return f.sums }, func(o *layout.Object) {
			o.Extent.Start, o.Written, o.Capacity, o.Extent.Blocks = free-free%16, 32*page, 32*page, 32
		}), check.ExtentSize, ""},
		{"extent too small for the log", create(log, func(o *layout.Object) { o.Extent.Start, o.Extent.Blocks = free-free%16, 16 }), check.ExtentSize, ""},
		{"extents overlap", create(empty, func(o *layout.Object) { o.Extent.Blocks = 32 }), check.ExtentOverlap + " " + check.ExtentOverlap, ""},
		{"id above the counters", create(empty, func(o *layout.Object) {
			o.Extent.Start, o.ID = free-free%16, layout.NewObjectID(layout.KindMblock, 1<<20)
		}), check.CounterAbove + " " + check.CounterAbove, ""},
		{"birth above the counters", create(empty, func(o *layout.Object) {
			o.Extent.Start, o.Birth = free-free%16, o.Birth+(1<<20)
		}), check.CounterAbove + " " + check.CounterAbove, ""},
		{"birth of another object", create(empty, func(o *layout.Object) {
			o.Extent.Start, o.Birth = free-free%16, o.Birth-5000+3
		}), check.BirthTwice, ""},
		{"mblock longer than its capacity", create(func(f *fixture) layout.ObjectID { return f.small }, func(o *layout.Object) {
			o.Extent.Start, o.Capacity = free-free%16, 9999
		}), check.ObjectFields + strings.Repeat(" "+check.DataChecksum, 3), ""},
		{"partner that does not live", create(log, func(o *layout.Object) {
			o.Extent.Start, o.Partner = free-free%16, layout.NewObjectID(layout.KindMlog, 77)
		}), check.PartnerLink + " " + check.LogNoTail, ""},
		{"partner that does not answer", create(log, func(o *layout.Object) {
			o.Extent.Start, o.Partner = free-free%16, layout.NewObjectID(layout.KindMlog, 6)
		}), check.PartnerLink + " " + check.LogNoTail, ""},
		{"relocated over another", func(t *testing.T, f *fixture) {
			o, other := f.object(t, f.empty), f.object(t, f.large)
			f.record(t, func(r *omf.Record) { r.Relocate(o.ID, o.Birth, other.Extent) })
		}, check.ExtentOverlap, ""},
	}
}

func dataBreakages() []breakage {
	at := func(pick func(f *fixture) layout.ObjectID, do func(f *fixture, off int64), block int64) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { do(f, f.at(t, pick(f), block)) }
	}
	flipAt := func(f *fixture, off int64) { flip(f.disk, off+77) }
	lose := func(f *fixture, off int64) { f.disk.SetUnreadable(off, page) }
	little := func(f *fixture) layout.ObjectID { return f.small }
	sums := func(f *fixture) layout.ObjectID { return f.sums }
	large := func(f *fixture) layout.ObjectID { return f.large }
	return []breakage{
		{"inline block flipped", at(little, flipAt, 1), check.DataChecksum, ""},
		{"inline block unreadable", at(little, lose, 0), check.DataUnreadable, ""},
		{"block flipped", at(large, flipAt, 700), check.DataChecksum, ""},
		{"last block's padding", func(t *testing.T, f *fixture) {
			o := f.object(t, f.small)
			b := readPage(t, f.disk, o.Extent.Offset()+2*page)
			b[page-1] = 1
			write(t, f.disk, b, o.Extent.Offset()+2*page)
		}, check.DataChecksum, ""},
		{"padding that has a checksum", func(t *testing.T, f *fixture) {
			o := f.object(t, f.small)
			b := readPage(t, f.disk, o.Extent.Offset()+2*page)
			b[page-1] = 1
			write(t, f.disk, b, o.Extent.Offset()+2*page)
			f.record(t, func(r *omf.Record) {
				r.Delete(o.ID, o.Birth)
				o.ID, o.Birth, o.Sums = layout.NewObjectID(layout.KindMblock, 5000), f.birth(5000), nil
				for i := range uint32(3) {
					o.Sums = append(o.Sums, mblock.BlockSum(o.Birth, i, readPage(t, f.disk, o.Extent.Offset()+int64(i)*page)))
				}
				r.Create(&o)
			})
		}, check.DataPadding, check.RootDangling},
		{"blocks swapped", func(t *testing.T, f *fixture) {
			a, b := f.at(t, f.large, 5), f.at(t, f.large, 6)
			pa, pb := readPage(t, f.disk, a), readPage(t, f.disk, b)
			write(t, f.disk, pb, a)
			write(t, f.disk, pa, b)
		}, check.DataChecksum + " " + check.DataChecksum, ""},
		{"checksum page flipped", at(sums, flipAt, 17), check.DataSums, ""},
		{"second checksum page unreadable", at(large, lose, 1281), check.DataSums, ""},
		{"checksum pages swapped", func(t *testing.T, f *fixture) {
			a, b := f.at(t, f.large, 1280), f.at(t, f.large, 1281)
			pa, pb := readPage(t, f.disk, a), readPage(t, f.disk, b)
			write(t, f.disk, pb, a)
			write(t, f.disk, pa, b)
		}, check.DataSums + " " + check.DataSums, ""},
		{"object over another's data", func(t *testing.T, f *fixture) {
			o, other := f.object(t, f.edge), f.object(t, f.empty)
			f.record(t, func(r *omf.Record) {
				r.Delete(other.ID, other.Birth)
				r.Relocate(o.ID, o.Birth, other.Extent)
			})
		}, strings.TrimSpace(strings.Repeat(check.DataChecksum+" ", 16)), ""},
	}
}
