package check_test

import (
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

func logBreakages() []breakage {
	slots := func(log int, list ...int) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			for _, i := range list {
				flip(f.disk, f.metaOffset(t, log)+int64(i)*page+200)
			}
		}
	}
	return []breakage{
		{"metadata tails gone", slots(0, 0, 1, 2, 3), check.LogNoTail, ""},
		{"tails of the unused metadata log gone", slots(1, 0, 1), check.LogNoTail, ""},
		{"log: one copy of the last tail gone, durability proven", func(t *testing.T, f *fixture) {
			f.cutOff(t, f.log)
			flip(f.disk, f.at(t, f.log, f.newest(t, f.log))+90)
		}, "", check.LogCopy},
		{"log: both copies of the last tail gone, durability proven", func(t *testing.T, f *fixture) {
			f.cutOff(t, f.log)
			slot := f.newest(t, f.log)
			flip(f.disk, f.at(t, f.log, slot)+90)
			flip(f.disk, f.at(t, f.log, slot^1)+90)
		}, check.LogBroken, ""},
		{"first metadata page flipped", func(t *testing.T, f *fixture) {
			flip(f.disk, f.metaOffset(t, 0)+4*page+1000)
		}, check.LogBroken, ""},
		{"first metadata page unreadable", func(t *testing.T, f *fixture) {
			f.disk.SetUnreadable(f.metaOffset(t, 0)+4*page, page)
		}, check.LogBroken, ""},
		{"first metadata page in the place of the second", func(t *testing.T, f *fixture) {
			write(t, f.disk, readPage(t, f.disk, f.metaOffset(t, 0)+4*page), f.metaOffset(t, 0)+5*page)
		}, check.LogBroken, ""},
		{small + "end mark gone", func(t *testing.T, f *fixture) {
			// The first page's second record: a mark of another kind.
			f.rechain(t, f.metaOffset(t, 0), func(b []byte) { b[72+8+9+8] = mlog.KindData })
		}, check.ContainerNone, ""},
		{small + "two end marks", func(t *testing.T, f *fixture) {
			f.rechain(t, f.metaOffset(t, 0), func(b []byte) { b[72+8] = mlog.KindEnd })
		}, check.ContainerRecord, ""},
		{"log: a final page flipped", func(t *testing.T, f *fixture) {
			flip(f.disk, f.at(t, f.log, 4)+500)
		}, check.LogBroken, ""},
		{"log: no tail", func(t *testing.T, f *fixture) {
			for i := range int64(4) {
				flip(f.disk, f.at(t, f.log, i)+90)
			}
		}, check.LogNoTail, ""},
		{"log: a durable page behind a broken one says so", func(t *testing.T, f *fixture) {
			// All tails but the first are gone: the pages still know.
			f.rollBack(t)
		}, check.LogBroken, ""},
		{"log erased and never formatted", func(t *testing.T, f *fixture) {
			o := f.object(t, f.fresh)
			f.record(t, func(r *omf.Record) { r.Erase(o.ID, o.Birth, 2) })
		}, check.LogNoTail, ""},
		{"log erased, the metadata does not know", func(t *testing.T, f *fixture) {
			o := f.object(t, f.log)
			f.drive(t, func(d *bdev.Drive) {
				c := mlog.Config{Drive: d, Birth: o.Birth, Epoch: 4, Extent: o.Extent, Generation: o.Generation + 1}
				do(t, mlog.Format(bg, c, o.Generation))
				// So far it is what a crash leaves.
				wantClean(t, f.disk)
				l, err := mlog.Open(bg, c)
				do(t, err)
				_, err = l.Append(bg, []byte("x"))
				do(t, err)
				do(t, l.Close(bg))
			})
		}, check.LogNoTail + " " + check.LogAhead, ""},
		{"container: active log without end mark", func(t *testing.T, f *fixture) {
			o := f.object(t, f.mdc)
			f.rechain(t, o.Extent.Offset(), func(b []byte) { b[72+8+9+8] = mlog.KindData })
		}, check.ContainerNone, ""},
		{"container: the replaced log rots", func(t *testing.T, f *fixture) {
			flip(f.disk, f.at(t, f.container, 4)+300)
		}, "", check.LogFormer},
		{"container: the replaced log grows", func(t *testing.T, f *fixture) {
			f.add(t, f.container, []byte{mlog.KindData, 1, 2})
		}, check.ContainerHandover, ""},
		{"container: both logs end in one generation", func(t *testing.T, f *fixture) {
			for _, kind := range []byte{mlog.KindStart, mlog.KindEnd} {
				f.add(t, f.object(t, f.mdc).Partner, append([]byte{kind}, make([]byte, 8)...))
			}
		}, check.ContainerTwice, ""},
		{"container: a record without a kind", func(t *testing.T, f *fixture) {
			f.add(t, f.mdc, nil)
		}, check.ContainerRecord, ""},
	}
}

// newest returns the slot of the newest tail of a log.
func (f *fixture) newest(t *testing.T, id layout.ObjectID) int64 {
	t.Helper()
	o := f.object(t, id)
	return f.newestAt(t, o.Extent.Offset(), o.Birth)
}

// newestAt returns the slot of the newest tail of a log that lies at an offset.
func (f *fixture) newestAt(t *testing.T, base int64, birth layout.BirthStamp) int64 {
	t.Helper()
	best, group := int64(-1), uint64(0)
	for i := range int64(4) {
		p, err := mlog.DecodePage(readPage(t, f.disk, base+i*page), birth)
		if err == nil && p.Group > group {
			best, group = i, p.Group
		}
	}
	return best
}

// cutOff appends to a log as if the power had gone when the group's final pages
// were written and its tail was not.
func (f *fixture) cutOff(t *testing.T, id layout.ObjectID) {
	t.Helper()
	o := f.object(t, id)
	f.add(t, id, pattern(10))
	slots := make([]byte, 4*page)
	_, err := f.disk.ReadAt(slots, o.Extent.Offset())
	do(t, err)
	f.add(t, id, pattern(9000))
	write(t, f.disk, slots, o.Extent.Offset())
}

// rechain changes the first tail page of a log without final pages, in every
// slot that holds what the first does.
func (f *fixture) rechain(t *testing.T, base int64, change func(b []byte)) {
	t.Helper()
	if le.Uint32(readPage(t, f.disk, base+4*page)) == mlog.Magic {
		t.Fatal("the log has final pages")
	}
	for i := range int64(4) {
		if b := readPage(t, f.disk, base+i*page); le.Uint32(b) == mlog.Magic {
			f.changePage(t, base+i*page, change)
		}
	}
}

// rollBack gives the log of the fixture back its very first tails.
func (f *fixture) rollBack(t *testing.T) {
	t.Helper()
	o := f.object(t, f.log)
	b := make([]byte, page)
	h := mlog.Header{Birth: o.Birth}
	le.PutUint32(b, mlog.Magic)
	b[4], b[5] = mlog.Version, mlog.FlagTail
	le.PutUint64(b[8:], uint64(h.Birth))
	le.PutUint64(b[16:], o.Generation)
	le.PutUint64(b[24:], 2)
	le.PutUint64(b[32:], 1)
	le.PutUint32(b[64:], mlog.PageCRC(b))
	for i := range int64(4) {
		write(t, f.disk, b, o.Extent.Offset()+i*page)
	}
}
