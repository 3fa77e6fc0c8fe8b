package mlog

import (
	"errors"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// proves S23
//
// A read that fails once or twice is no rot.
func TestTransientReadErrors(t *testing.T) {
	list, want, c := moments(t)
	for _, m := range list {
		for i := range SlotPages + int(m.to) {
			d := m.disk.Clone()
			at := c.Extent.Offset() + int64(i)*PageSize
			d.Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + PageSize, Count: 2, Err: syscall.EIO})
			drive, err := sim.Open(nil, d, sim.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.Drive, c.Epoch = drive, 1000
			checkLog(t, &rig{disk: d, drive: drive, c: c}, want[:m.records])
		}
	}
}

// proves S23
//
// A drive that fails in the middle of the recovery does not make the log
// shorter.
func TestDriveFailsDuringRecovery(t *testing.T) {
	list, want, c := moments(t)
	failed := 0
	for _, m := range list {
		for _, e := range []error{syscall.EIO, syscall.ENODEV} {
			for skip := range uint64(6) {
				d := m.disk.Clone()
				d.Inject(sim.Fault{Code: bdev.OpRead, Skip: skip, Err: e})
				drive, err := sim.Open(nil, d, sim.OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				c.Drive, c.Epoch = drive, 1000
				l, err := Open(bg, c)
				if err != nil {
					if failed++; !errors.Is(err, api.EIO) {
						t.Fatalf("%s: %v", m.what, err)
					}
					continue
				}
				if n := l.Records(); n != m.records {
					t.Fatalf("%s, %v after %d reads: %d records, want %d", m.what, e, skip, n, m.records)
				}
				mustAbandon(l)
			}
		}
	}
	if failed == 0 || len(want) == 0 {
		t.Fatal("nothing failed")
	}
}

// proves S23
//
// A page that rots while the log is open is never read as something else.
func TestRotUnderReader(t *testing.T) {
	for _, a := range rots {
		for k := range uint32(6) {
			r, l := newTestLog(t, 20)
			var want [][]byte
			for n := range uint64(30) {
				want = append(want, record(n, 700))
				mustAppend(t, l, want[n])
			}
			mustSync(t, l)
			if !a.do(r.disk, offsetOf(r.c.Extent, k), []*sim.Disk{sim.NewDisk(r.disk.Size(), sim.DiskOptions{})}) {
				continue
			}
			got, err := readAll(l, ReaderOptions{})
			if k >= l.durable.pages {
				if err != nil || len(got) != len(want) {
					t.Fatalf("page %d is not in use: %v", k, err)
				}
				continue
			}
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.ECORRUPT && e.Code != api.EIO || e.Offset != offsetOf(r.c.Extent, k) {
				t.Fatalf("page %d, %s: %v", k, a.name, err)
			}
			if err := sameRecords(got, want[:len(got)]); err != nil {
				t.Fatal(err)
			}
			mustClose(t, l)
		}
	}
}

// proves S23
//
// A tail that cannot be read may be there: the log is not said to be broken, also
// when another slot has a tail that an erase has left.
func TestTailUnreadable(t *testing.T) {
	r := newRig(t, nil, 24)
	r.format(t)
	next := r.c
	next.Generation++
	if err := Format(bg, next, r.c.Generation); err != nil {
		t.Fatal(err)
	}
	for pair := range 2 {
		d := r.disk.Clone()
		at := next.pairOffset(pair)
		d.Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + PairPages*PageSize, Err: syscall.EIO})
		drive, err := sim.Open(nil, d, sim.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := next
		c.Drive = drive
		switch l, err := Open(bg, c); {
		case err == nil:
			mustAbandon(l)
		case !errors.Is(err, api.EIO):
			t.Errorf("pair %d cannot be read: %v", pair, err)
		}
	}
}
