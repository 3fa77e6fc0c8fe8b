package check_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/omf"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		do(t, os.MkdirAll("testdata", 0o755))
		do(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	do(t, err)
	if string(want) != got {
		t.Errorf("%s differs; -rewrite if that is right. Got:\n%s", path, got)
	}
}

const page = 4096

func readPage(t testing.TB, d *devsim.Disk, off int64) []byte {
	t.Helper()
	b := make([]byte, page)
	_, err := d.ReadAt(b, off)
	do(t, err)
	return b
}

func write(t testing.TB, d *devsim.Disk, b []byte, off int64) {
	t.Helper()
	_, err := d.WriteAt(b, off)
	do(t, err)
}

// flip turns one bit of a byte.
func flip(d *devsim.Disk, off int64) { d.FlipBit(off, 3) }

// superblock decodes a copy.
func (f *fixture) superblock(t testing.TB) *omf.Superblock {
	t.Helper()
	for i := range omf.Copies {
		if sb, err := omf.Decode(readPage(t, f.disk, f.copyOffset(i))); err == nil {
			return sb
		}
	}
	t.Fatal("no copy of the superblock is valid")
	return nil
}

// copyOffset is where a superblock copy lies.
func (f *fixture) copyOffset(i int) int64 {
	return []int64{0, omf.SecondCopyOffset, diskSize - omf.SuperblockSize}[i]
}

// putSuperblock changes one superblock copy.
func (f *fixture) putSuperblock(t testing.TB, i int, change func(*omf.Superblock)) {
	t.Helper()
	sb := f.superblock(t)
	sb.Copy = uint32(i)
	change(sb)
	b := make([]byte, omf.SuperblockSize)
	do(t, sb.Encode(b))
	write(t, f.disk, b, f.copyOffset(i))
}

// putSuperblocks changes all superblock copies.
func (f *fixture) putSuperblocks(t testing.TB, change func(*omf.Superblock)) {
	t.Helper()
	for _, i := range []int{1, 2, 0} {
		f.putSuperblock(t, i, change)
	}
}

// sealSuperblock computes a superblock's checksum anew.
func sealSuperblock(b []byte) {
	binary.LittleEndian.PutUint32(b[page-4:], crc32.Checksum(b[:page-4], crc32.MakeTable(crc32.Castagnoli)))
}

// changePage changes a log page and computes its CRC anew.
func (f *fixture) changePage(t testing.TB, off int64, change func(b []byte)) {
	t.Helper()
	b := readPage(t, f.disk, off)
	change(b)
	binary.LittleEndian.PutUint32(b[64:], mlog.PageCRC(b))
	write(t, f.disk, b, off)
}

// metaOffset is where a metadata log lies.
func (f *fixture) metaOffset(t testing.TB, log int) int64 {
	t.Helper()
	return int64(f.superblock(t).Logs[log].Start) * page
}

// drive opens the disk for f.
func (f *fixture) drive(t testing.TB, use func(d *bdev.Drive)) {
	t.Helper()
	d, err := devsim.Open(nil, f.disk, devsim.OpenOptions{})
	do(t, err)
	use(d)
	do(t, d.Close())
}

// metadata opens the metadata container for f and closes it.
func (f *fixture) metadata(t testing.TB, use func(m *mlog.MDC)) {
	t.Helper()
	sb := f.superblock(t)
	f.drive(t, func(d *bdev.Drive) {
		var c [2]mlog.Config
		for i, l := range sb.Logs {
			c[i] = mlog.Config{Drive: d, Birth: l.Birth, Epoch: sb.Epoch, Extent: layout.Extent{Start: l.Start, Blocks: l.Blocks}}
		}
		m, err := mlog.OpenMDC(bg, mlog.MDCConfig{A: c[0], B: c[1], Discover: true})
		do(t, err)
		use(m)
		do(t, m.Close(bg))
	})
}

// killed commits an mblock of two blocks and then others, one after the other,
// and leaves the disk as a process does that dies then.
func (f *fixture) killed(t testing.TB, others ...int) layout.ObjectID {
	t.Helper()
	var id layout.ObjectID
	var left *devsim.Disk
	use(t, f.disk, func(p *mpool.Pool) {
		id = put(t, p, page+1)
		for _, n := range others {
			put(t, p, n)
		}
		left = f.disk.Clone()
	})
	f.disk = left
	f.learn(t)
	return id
}

// record appends a record to the metadata.
func (f *fixture) record(t testing.TB, build func(r *omf.Record)) {
	t.Helper()
	var r omf.Record
	build(&r)
	f.raw(t, r.Bytes())
}

func (f *fixture) raw(t testing.TB, record []byte) {
	t.Helper()
	f.metadata(t, func(m *mlog.MDC) {
		_, err := m.Append(bg, record)
		do(t, err)
	})
}

// compact compacts the metadata into records that the caller gives.
func (f *fixture) compact(t testing.TB, records ...[]byte) {
	t.Helper()
	f.metadata(t, func(m *mlog.MDC) {
		do(t, m.CompactStart(bg))
		for _, r := range records {
			do(t, m.CompactAppend(bg, r))
		}
		do(t, m.CompactEnd(bg))
	})
}

// records returns all metadata records.
func (f *fixture) records(t testing.TB) [][]byte {
	t.Helper()
	var list [][]byte
	f.metadata(t, func(m *mlog.MDC) {
		r := m.NewReader(mlog.ReaderOptions{})
		defer r.Close()
		for {
			b, err := r.NextAppend(bg, nil)
			if errors.Is(err, io.EOF) {
				return
			}
			do(t, err)
			list = append(list, b)
		}
	})
	return list
}

// learn reads what the metadata says of each object.
func (f *fixture) learn(t testing.TB) {
	t.Helper()
	f.objects = make(map[layout.ObjectID]layout.Object)
	for _, rec := range f.records(t) {
		do(t, omf.DecodeRecord(rec, func(op *omf.Op) error {
			o := op.Object
			o.Sums = append([]uint32(nil), o.Sums...)
			if op.Type == omf.OpCreate {
				f.objects[o.ID] = o
			}
			if op.Type == omf.OpErase {
				was := f.objects[o.ID]
				was.Generation = o.Generation
				f.objects[o.ID] = was
			}
			return nil
		}))
	}
}

// object returns an object as the metadata of the whole fixture has it.
func (f *fixture) object(t testing.TB, id layout.ObjectID) layout.Object {
	t.Helper()
	o, ok := f.objects[id]
	if !ok {
		t.Fatalf("no object %v", id)
	}
	return o
}

// birth returns the n-th birth stamp of the pool.
func (f *fixture) birth(n uint64) layout.BirthStamp {
	return f.objects[f.empty].Birth - 1 + layout.BirthStamp(n)
}

// at is a byte offset within an object's extent.
func (f *fixture) at(t testing.TB, id layout.ObjectID, block int64) int64 {
	t.Helper()
	o := f.object(t, id)
	return o.Extent.Offset() + block*page
}

// openLog opens a log of the pool for f and closes it.
func (f *fixture) openLog(t testing.TB, id layout.ObjectID, use func(l *mlog.Log)) {
	t.Helper()
	o := f.object(t, id)
	f.drive(t, func(d *bdev.Drive) {
		l, err := mlog.Open(bg, mlog.Config{
			Drive: d, Birth: o.Birth, Epoch: f.superblock(t).Epoch, Extent: o.Extent, Generation: o.Generation,
		})
		do(t, err)
		use(l)
		do(t, l.Close(bg))
	})
}

// add appends a record to a log of the pool.
func (f *fixture) add(t testing.TB, id layout.ObjectID, record []byte) {
	t.Helper()
	f.openLog(t, id, func(l *mlog.Log) {
		_, err := l.Append(bg, record)
		do(t, err)
	})
}
