package mlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// moment is a log between two groups.
type moment struct {
	disk    *sim.Disk
	what    string
	records uint64 // all durable
	before  uint64 // durable before the last group
	from    uint32 // the last group wrote the final pages [from, to)
	to      uint32
	clean   bool // nothing after the last group's records is the last group
}

// rot is one way for a page to go bad.
type rot struct {
	name string
	do   func(d *sim.Disk, offset int64, older []*sim.Disk) bool
}

func flip(at int64) rot {
	return rot{fmt.Sprintf("flip at %d", at), func(d *sim.Disk, offset int64, _ []*sim.Disk) bool {
		d.FlipBit(offset+at, 4)
		return true
	}}
}

func overwrite(d *sim.Disk, offset int64, b []byte) {
	if _, err := d.WriteAt(b, offset); err != nil {
		panic(err)
	}
}

var rots = []rot{
	flip(offMagic), flip(offUsed), flip(offGroup), flip(offCRC), flip(offPayload), flip(PageSize - 1),
	{"zeros", func(d *sim.Disk, offset int64, _ []*sim.Disk) bool {
		overwrite(d, offset, make([]byte, PageSize))
		return true
	}},
	{"unreadable", func(d *sim.Disk, offset int64, _ []*sim.Disk) bool {
		d.SetUnreadable(offset, PageSize)
		return true
	}},
	{"of another chain", func(d *sim.Disk, offset int64, _ []*sim.Disk) bool {
		b := make([]byte, PageSize)
		if _, err := d.ReadAt(b, offset); err != nil {
			panic(err)
		}
		if binary.LittleEndian.Uint32(b[offIndex:]) == 0 {
			return false
		}
		b[offPrev] ^= 1
		binary.LittleEndian.PutUint32(b[offCRC:], PageCRC(b))
		overwrite(d, offset, b)
		return true
	}},
	{"stale", func(d *sim.Disk, offset int64, older []*sim.Disk) bool {
		now, was := make([]byte, PageSize), make([]byte, PageSize)
		if _, err := d.ReadAt(now, offset); err != nil {
			panic(err)
		}
		for _, old := range slices.Backward(older) {
			if _, err := old.ReadAt(was, offset); err != nil {
				panic(err)
			}
			if !bytes.Equal(now, was) {
				overwrite(d, offset, was)
				return true
			}
		}
		return false
	}},
}

// moments runs a log through groups of all kinds: within a page, filling one,
// many pages, two lives, clean closes, a crash, an erase before.
func moments(t testing.TB) (list []moment, want [][]byte, c Config) {
	t.Helper()
	r := newRig(t, nil, 24)
	// An earlier generation leaves its pages behind.
	r.c.Generation = 1
	r.format(t)
	l := r.open(t)
	for n := range uint64(6) {
		mustAppend(t, l, record(100+n, 3000))
		mustSync(t, l)
	}
	mustClose(t, l)
	r.c.Generation, r.c.Epoch = 2, 2
	if err := Format(bg, r.c, 1); err != nil {
		t.Fatal(err)
	}
	l = r.open(t)
	keep := func(what string, from mark, clean bool) {
		list = append(list, moment{
			disk: r.disk.Clone(), what: what, records: l.durable.records, before: from.records,
			from: from.pages, to: l.durable.pages, clean: clean,
		})
	}
	keep("formatted", l.durable, true)
	group := func(sizes ...int) {
		from := l.durable
		for _, size := range sizes {
			want = append(want, record(uint64(len(want)), size))
			mustAppend(t, l, want[len(want)-1])
		}
		mustSync(t, l)
		keep(fmt.Sprint("group of ", sizes), from, false)
	}
	reopen := func(how string) {
		switch how {
		case "close":
			mustClose(t, l)
		default:
			if err := l.Abandon(bg); err != nil {
				t.Fatal(err)
			}
		}
		r.c.Epoch++
		from := l.durable
		l = r.open(t)
		if how == "close" {
			keep("closed", from, true)
		}
	}
	group(10)
	group(20, 0)
	group(PayloadSize - 100)
	group(3 * PageSize)
	reopen("close")
	group(100)
	group(dataPerPage)
	reopen("crash")
	group(2000, 2000, 2000)
	group(5)
	reopen("close")
	reopen("close")
	group(2 * dataPerPage)
	group(1)
	reopen("close")
	mustClose(t, l)
	return list, want, r.c
}

// rotten judges what a log with bad pages opens as.
func (m *moment) rotten(c Config, disk *sim.Disk, want [][]byte, excused bool) error {
	drive, err := sim.Open(nil, disk, sim.OpenOptions{})
	if err != nil {
		return err
	}
	defer drive.Close()
	c.Drive, c.Epoch = drive, 1000
	var found [][]byte
	c.Replay = func(_ uint64, b []byte) error {
		found = append(found, bytes.Clone(b))
		return nil
	}
	l, err := Open(bg, c)
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && (e.Code == api.ECORRUPT || e.Code == api.EIO) && e.Device != "" {
			return nil
		}
		return err
	}
	defer mustAbandon(l)
	n := m.records
	if uint64(len(found)) != n && excused && !m.clean {
		n = m.before
	}
	if err := sameRecords(found, want[:n]); err != nil {
		return err
	}
	// What goes on from here is right, too.
	more := record(7777, 100)
	if _, err := l.AppendSync(bg, more); err != nil {
		return err
	}
	got, err := readAll(l, ReaderOptions{})
	if err != nil {
		return err
	}
	return sameRecords(got, append(append([][]byte(nil), want[:n]...), more))
}

func mustAbandon(l *Log) {
	if err := l.Abandon(bg); err != nil {
		panic(err)
	}
}

// final returns the final page that page i of the extent is.
func final(i int) (uint32, bool) { return uint32(i - SlotPages), i >= SlotPages }

// excuses says whether the pages are what the stated exception excuses: a final
// page that the last group wrote first, or both copies of its tail.
func (m *moment) excuses(newest int, pages ...int) bool {
	copies := 0
	for _, i := range pages {
		if k, ok := final(i); ok && k >= m.from && k < m.to {
			return true
		}
		if i < SlotPages && i/PairPages == newest {
			copies++
		}
	}
	return copies == PairPages
}

// newestPair returns the pair that holds the newest tail.
func newestPair(t *testing.T, d *sim.Disk, c Config) int {
	t.Helper()
	best, pair := Page{}, 0
	for i := range SlotPages {
		b := make([]byte, PageSize)
		if _, err := d.ReadAt(b, c.Extent.Offset()+int64(i)*PageSize); err != nil {
			t.Fatal(err)
		}
		p, err := DecodePage(b, c.Birth)
		if err == nil && p.Generation == c.Generation && p.Group > best.Group {
			best, pair = p, i/PairPages
		}
	}
	return pair
}

// proves S23
//
// Every page of a log, and every two, go bad in every way at every moment.
func TestRot(t *testing.T) {
	list, want, c := moments(t)
	var older []*sim.Disk
	tried := 0
	for _, m := range list {
		newest := newestPair(t, m.disk, c)
		pages := SlotPages + int(m.to) + 1
		for i := range pages {
			for _, a := range rots {
				one := m.disk.Clone()
				if !a.do(one, c.Extent.Offset()+int64(i)*PageSize, older) {
					continue
				}
				tried++
				if err := m.rotten(c, one.Clone(), want, m.excuses(newest, i)); err != nil {
					t.Errorf("%s: page %d, %s: %v", m.what, i, a.name, err)
				}
				for j := range i {
					if (testing.Short() || raced) && (i+j)%5 != 0 {
						continue
					}
					for _, b := range rots[4:] {
						two := one.Clone()
						if !b.do(two, c.Extent.Offset()+int64(j)*PageSize, older) {
							continue
						}
						tried++
						if err := m.rotten(c, two, want, m.excuses(newest, i, j)); err != nil {
							t.Errorf("%s: page %d, %s, and page %d, %s: %v", m.what, i, a.name, j, b.name, err)
						}
					}
				}
			}
		}
		older = append(older, m.disk)
	}
	t.Logf("%d rotten logs", tried)
}

// proves S22, S23
//
// A page goes bad after a power cut at every moment, also within a group.
func TestRotAfterCrash(t *testing.T) {
	for seed := range uint64(3) {
		r := simRig(t, seed, 24)
		rng := rand.New(rand.NewPCG(seed, 11))
		g := newLedger()
		type snap struct {
			snapshot
			acked mark
			prev  mark // durable before acked
		}
		var snaps []snap
		var log *Log
		var last, prev mark
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{OnIO: func(b sim.Boundary) bool {
			if log == nil {
				return false
			}
			if log.durable != last { // the tasks stand still: no lock is needed
				last, prev = log.durable, last
			}
			d, cut := r.disk.Survivor(rng, sim.CutOptions{})
			snaps = append(snaps, snap{snapshot{d, g.clone(), fmt.Sprintf("%v: %v", b, cut)}, last, prev})
			return false
		}}, func(c Config, _ *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			last, prev = l.durable, l.durable
			log = l
			w := workload{maxSize: 3 * PageSize}
			c.OnDurable = nil
			if err := w.appender(l, g, rng, 14); err != nil {
				return err
			}
			return l.Abandon(bg)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range snaps {
			for i := range SlotPages + int(s.acked.pages) + 2 {
				a := rots[rng.IntN(len(rots)-1)]
				d := s.disk.Clone()
				a.do(d, r.c.Extent.Offset()+int64(i)*PageSize, nil)
				if err := afterRot(d, r.c, s.g.clone(), s.acked, s.prev, i); err != nil {
					t.Errorf("seed %d, %s: page %d, %s: %v", seed, s.what, i, a.name, err)
				}
			}
		}
	}
}

// afterRot opens a log of which page i went bad after a crash, and judges it.
func afterRot(d *sim.Disk, c Config, g *ledger, acked, prev mark, i int) error {
	drive, err := sim.Open(nil, d, sim.OpenOptions{})
	if err != nil {
		return err
	}
	defer drive.Close()
	c.Drive, c.Epoch = drive, 50
	var found [][]byte
	c.Replay = func(_ uint64, b []byte) error {
		found = append(found, bytes.Clone(b))
		return nil
	}
	l, err := Open(bg, c)
	if errors.Is(err, api.ECORRUPT) || errors.Is(err, api.EIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer mustAbandon(l)
	// The exception: a final page that the last durable group wrote first.
	if k, ok := final(i); ok && k >= prev.pages && k < acked.pages && uint64(len(found)) == prev.records {
		g.acked = prev.records
	}
	return g.judge(found)
}

// The write of a clean close that goes astray, onto the last group's pages: it is
// the only one that says that they were durable, and is heard where it is.
//
// proves S23
func TestStrayClose(t *testing.T) {
	r := newRig(t, nil, 24)
	r.format(t)
	l := r.open(t)
	for n := range uint64(6) {
		mustAppend(t, l, record(n, 3000))
		mustSync(t, l)
	}
	mustAppend(t, l, record(6, 9000))
	mustSync(t, l)
	before := r.disk.Clone()
	from, pair := l.durable.pages-1, 1-l.w.pair // the last full page; what the last group wrote
	mustClose(t, l)
	const size = PairPages * PageSize
	b := make([]byte, size)
	read := func(d *sim.Disk, offset int64) {
		if _, err := d.ReadAt(b, offset); err != nil {
			t.Fatal(err)
		}
	}
	closed := r.c.pairOffset(1 - pair)
	read(r.disk, closed)
	overwrite(r.disk, offsetOf(r.c.Extent, from), b) // where it went
	read(before, closed)
	overwrite(r.disk, closed, b) // where it should have gone
	if _, err := Open(bg, r.c); !errors.Is(err, api.ECORRUPT) {
		t.Errorf("opened: %v", err)
	}
}
