package check_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

func recordBreakages() []breakage {
	record := func(build func(r *omf.Record)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { f.record(t, build) }
	}
	on := func(pick func(f *fixture) layout.ObjectID, build func(r *omf.Record, o *layout.Object)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			o := f.object(t, pick(f))
			f.record(t, func(r *omf.Record) { build(r, &o) })
		}
	}
	little := func(f *fixture) layout.ObjectID { return f.small }
	log := func(f *fixture) layout.ObjectID { return f.log }
	return []breakage{
		{"record cut off", func(t *testing.T, f *fixture) { f.raw(t, []byte{1, 0, 1, 0, 2}) }, check.RecordMalformed, ""},
		{"record of a later version", func(t *testing.T, f *fixture) { f.raw(t, []byte{2, 0, 0, 0}) }, check.RecordMalformed, ""},
		{"create of what lives", on(little, func(r *omf.Record, o *layout.Object) {
			r.Create(o)
		}), check.CreateExists + " " + check.BirthTwice, ""},
		{"create of what lives, another birth", on(little, func(r *omf.Record, o *layout.Object) {
			o.Birth += 100
			r.Create(o)
		}), check.CreateExists + strings.Repeat(" "+check.DataChecksum, 3), ""},
		{"create again with the same birth", on(little, func(r *omf.Record, o *layout.Object) {
			r.Delete(o.ID, o.Birth)
			r.Create(o)
		}), check.BirthTwice, ""},
		{"delete of nothing", record(func(r *omf.Record) {
			r.Delete(layout.NewObjectID(layout.KindMblock, 99), 99)
		}), check.DeleteAbsent, ""},
		{"delete with another birth", on(little, func(r *omf.Record, o *layout.Object) {
			r.Delete(o.ID, o.Birth+1)
		}), check.DeleteAbsent, ""},
		{"erase of nothing", record(func(r *omf.Record) {
			r.Erase(layout.NewObjectID(layout.KindMlog, 99), 99, 3)
		}), check.ChangeAbsent, ""},
		{"erase of an mblock", on(little, func(r *omf.Record, o *layout.Object) {
			r.Erase(o.ID, o.Birth, 3)
		}), check.ObjectFields, ""},
		{"erase to the same generation", on(log, func(r *omf.Record, o *layout.Object) {
			r.Erase(o.ID, o.Birth, o.Generation)
		}), check.EraseBack, ""},
		{"update with another birth", on(log, func(r *omf.Record, o *layout.Object) {
			r.Update(o.ID, o.Birth+7, 0, 5)
		}), check.ChangeAbsent, ""},
		{"update to an owner that is not there", on(log, func(r *omf.Record, o *layout.Object) {
			r.Update(o.ID, o.Birth, 2, 5)
		}), check.OwnerUnknown, ""},
		{"unset of no root", record(func(r *omf.Record) { r.Root("none", 0) }), check.DeleteAbsent, ""},
		{"root of what is no object", record(func(r *omf.Record) { r.Root("none", 5) }), check.RecordMalformed, ""},
		{"root of what does not live", record(func(r *omf.Record) {
			r.Root("none", layout.NewObjectID(layout.KindMlog, 99))
		}), "", check.RootDangling},
		{"too many roots", record(func(r *omf.Record) {
			id := layout.NewObjectID(layout.KindMlog, 6)
			for i := range 1023 {
				r.Root(fmt.Sprint(i), id)
			}
		}), check.RootLimit, ""},
		{"owner after a gap", record(func(r *omf.Record) { r.Owner(3, 0, "x") }), check.OwnerOrder, ""},
		{"owner before its parent", record(func(r *omf.Record) { r.Owner(2, 2, "x") }), check.OwnerOrder, ""},
		{"owner twice", record(func(r *omf.Record) { r.Owner(1, 0, "tenant") }), check.OwnerOrder, ""},
		{"counters go back", record(func(r *omf.Record) { r.Counter(1, 1) }), check.CounterBack, ""},
		{"property out of range", record(func(r *omf.Record) {
			r.PropertyNumber(omf.PropSpare, 51)
		}), check.PropertyValue, ""},
		{"commit whose data did not arrive", func(t *testing.T, f *fixture) {
			id := f.killed(t)
			flip(f.disk, f.at(t, id, 1))
		}, "", check.CommitCut},
		{"commit whose data cannot be read", func(t *testing.T, f *fixture) {
			id := f.killed(t)
			f.disk.SetUnreadable(f.at(t, id, 0), page)
		}, "", check.CommitCut},
		{"commit whose data arrived", func(t *testing.T, f *fixture) { f.killed(t) }, "", ""},
		{"rot of what was committed before", func(t *testing.T, f *fixture) {
			id := f.killed(t, 100)
			flip(f.disk, f.at(t, id, 1))
		}, check.DataChecksum, ""},
		{"no room for deletes", func(t *testing.T, f *fixture) {
			for i := range uint64(10) {
				f.record(t, func(r *omf.Record) {
					for j := range uint64(50) {
						n := 5000 + 50*i + j
						r.Create(&layout.Object{
							ID: layout.NewObjectID(layout.KindMblock, n), Birth: f.birth(n),
							Extent: layout.Extent{Start: 320, Blocks: 16},
						})
					}
				})
			}
		}, strings.Repeat(check.ExtentOverlap+" ", 500) + check.MetadataRoom, ""},
		{"compaction loses an object", compactWithout(func(f *fixture, op *omf.Op) bool {
			return op.Type == omf.OpCreate && op.Object.ID == f.small
		}), check.CompactionDiffers, check.RootDangling},
		{"compaction loses a root", compactWithout(func(_ *fixture, op *omf.Op) bool {
			return op.Type == omf.OpRoot && op.Name == "first"
		}), check.CompactionDiffers, ""},
		{small + "compaction loses the counters", compactWithout(func(_ *fixture, op *omf.Op) bool {
			return op.Type == omf.OpCounter && op.NextID > 5000
		}), check.CompactionDiffers + " " + check.CounterAbove, ""},
		{"compaction brings an object back", compactWithout(func(_ *fixture, op *omf.Op) bool {
			return op.Type == omf.OpDelete
		}), check.CompactionDiffers + " " + check.ExtentOverlap + " " + check.DataChecksum, ""},
		{"compaction keeps everything", compactWithout(func(*fixture, *omf.Op) bool { return false }), "", ""},
	}
}

// compactWithout compacts the metadata, with every operation of the old log but
// those that are to be lost.
func compactWithout(lost func(f *fixture, op *omf.Op) bool) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		var keep [][]byte
		for _, rec := range f.records(t) {
			var r omf.Record
			do(t, omf.DecodeRecord(rec, func(op *omf.Op) error {
				if !lost(f, op) {
					add(&r, op)
				}
				return nil
			}))
			if r.Count() > 0 {
				keep = append(keep, append([]byte(nil), r.Bytes()...))
			}
		}
		f.compact(t, keep...)
	}
}

// add encodes an operation again.
func add(r *omf.Record, op *omf.Op) {
	o := &op.Object
	switch op.Type {
	case omf.OpCreate:
		r.Create(o)
	case omf.OpDelete:
		r.Delete(o.ID, o.Birth)
	case omf.OpErase:
		r.Erase(o.ID, o.Birth, o.Generation)
	case omf.OpRoot:
		r.Root(op.Name, o.ID)
	case omf.OpOwner:
		r.Owner(op.Index, op.Parent, op.Name)
	case omf.OpCounter:
		r.Counter(op.NextID, op.Birth)
	case omf.OpProperty:
		if op.Property == omf.PropLabel {
			r.PropertyText(op.Property, op.Name)
		} else {
			r.PropertyNumber(op.Property, op.Value)
		}
	case omf.OpUpdate, omf.OpRelocate, omf.OpDrive:
		panic("the fixture has none")
	}
}
