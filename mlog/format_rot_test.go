package mlog

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// A log is formatted anew while tail slots of it cannot be read: the pair that may
// hold its tail is left alone, and if that may be either, nothing is written.
//
// proves S24
func TestFormatOverUnreadableTails(t *testing.T) {
	for _, unreadable := range [][]int{nil, {0}, {1}, {0, 1}} {
		r := newRig(t, nil, 24)
		r.format(t)
		now := r.c
		now.Generation++
		if err := Format(bg, now, r.c.Generation); err != nil { // into pair 1
			t.Fatal(err)
		}
		was := r.disk.Clone()
		for _, pair := range unreadable {
			at := now.pairOffset(pair)
			r.disk.Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + PairPages*PageSize, Err: syscall.EIO})
		}
		next := now
		next.Generation++
		err := Format(bg, next, now.Generation)
		if (len(unreadable) == 2) != errors.Is(err, api.EIO) {
			t.Errorf("pairs %v cannot be read: %v", unreadable, err)
		}
		for pair := range 2 {
			before, after := make([]byte, PageSize), make([]byte, PageSize)
			if _, err := was.ReadAt(before, now.pairOffset(pair)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.disk.ReadAt(after, now.pairOffset(pair)); err != nil {
				t.Fatal(err)
			}
			if written := !bytes.Equal(before, after); written != (pair == 0 && err == nil) {
				t.Errorf("pairs %v cannot be read: pair %d is written: %v", unreadable, pair, written)
			}
		}
	}
}

// life is what a log's slots and final pages were, group after group.
type life struct {
	c    Config
	disk *sim.Disk // as it was at the end
	pair [PairPages][][]byte
}

// liveThrough runs a log through two activations, the first of which ends in a
// crash: groups that fill pages and such that do not.
func liveThrough(t *testing.T) life {
	t.Helper()
	r := newRig(t, nil, 8)
	r.format(t)
	l := r.open(t)
	var v life
	take := func() {
		for pair := range v.pair {
			b := make([]byte, PageSize)
			if _, err := r.disk.ReadAt(b, r.c.pairOffset(pair)); err != nil {
				t.Fatal(err)
			}
			if n := len(v.pair[pair]); n == 0 || !bytes.Equal(v.pair[pair][n-1], b) {
				v.pair[pair] = append(v.pair[pair], b)
			}
		}
	}
	take()
	for n, size := range []int{3000, 3000, 100, 3000, 3000, 100} {
		if n == 3 {
			if err := l.Abandon(bg); err != nil {
				t.Fatal(err)
			}
			r.c.Epoch++
			l = r.open(t)
		}
		mustAppend(t, l, record(uint64(n), size))
		mustSync(t, l)
		take()
	}
	if err := l.Abandon(bg); err != nil {
		t.Fatal(err)
	}
	v.disk, v.c = r.disk, r.c
	v.c.Epoch++
	return v
}

// found is what an activation finds: the records, or none if it says that the log
// is broken.
func found(t *testing.T, c Config, d *sim.Disk) (records uint64, broken bool) {
	t.Helper()
	drive, err := sim.Open(nil, d, sim.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Drive = drive
	l, err := Open(bg, c)
	if errors.Is(err, api.ECORRUPT) {
		return 0, true
	}
	if err != nil {
		t.Fatal(err)
	}
	return l.Records(), false
}

// Whatever has rotted, or was cut off, the first half of an erase changes nothing
// for who opens the log when its second half never came: records that were there
// are there, and a log that was broken is broken.
//
// proves S23 S24
func TestFormatKeepsWhatIsFound(t *testing.T) {
	v := liveThrough(t)
	states, whole, corrupt := 0, 0, 0
	var slot [PairPages][][]byte // what a slot of each pair may hold
	for pair, images := range v.pair {
		slot[pair] = append([][]byte{make([]byte, PageSize)}, images...)
	}
	tried := 0
	try := func(rotten uint32, slots [SlotPages][]byte) {
		if tried++; raced && tried%7 != 0 {
			return // nothing runs beside it
		}
		d := v.disk.Clone()
		for i, b := range slots {
			overwrite(d, v.c.Extent.Offset()+int64(i)*PageSize, b)
		}
		if rotten < 8 {
			d.FlipBit(offsetOf(v.c.Extent, rotten)+offPayload, 3)
		}
		records, broken := found(t, v.c, d.Clone())
		states++
		if broken {
			corrupt++
		} else {
			whole++
		}
		after := d.Clone()
		drive, err := sim.Open(nil, after, sim.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		next := v.c
		next.Drive, next.Generation = drive, v.c.Generation+1
		if err := Format(bg, next, v.c.Generation); err != nil {
			t.Fatal(err)
		}
		if n, b := found(t, v.c, after.Durable()); n != records || b != broken {
			names := make([]uint64, SlotPages)
			for i, b := range slots {
				var p Page
				if p.decode(b, v.c.Birth) == nil {
					names[i] = p.Group
				}
			}
			t.Errorf("slots hold the groups %v, page %d is rotten: %d records, broken %v; after the format %d, broken %v",
				names, rotten, records, broken, n, b)
		}
	}
	for _, a := range slot[0] {
		for _, b := range slot[0] {
			for _, c := range slot[1] {
				for _, e := range slot[1] {
					for rotten := range uint32(6) {
						try(rotten, [SlotPages][]byte{a, b, c, e})
					}
				}
			}
		}
	}
	if whole == 0 || corrupt == 0 {
		t.Errorf("%d states whole, %d broken", whole, corrupt)
	}
	t.Logf("%d states: %d whole, %d broken", states, whole, corrupt)
}
