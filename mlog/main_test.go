package mlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testBirth = layout.BirthStamp(0xb1237)
	testStart = 16 // block at which test logs begin
)

var bg = context.Background()

// rig is a log's place on a simulated disk, with or without a simulation.
type rig struct {
	disk  *sim.Disk
	drive *bdev.Drive
	c     Config
}

// newRig makes a disk with room for a log of so many final pages. s may be nil.
func newRig(t testing.TB, s *sched.Sched, finals uint32) *rig {
	t.Helper()
	r := &rig{disk: sim.NewDisk(int64(testStart+SlotPages+finals+16)*PageSize, sim.DiskOptions{})}
	r.c = newRigConfig(finals)
	r.c.Sched = s
	r.attach(t)
	return r
}

func newRigConfig(finals uint32) Config {
	return Config{
		ID: layout.NewObjectID(layout.KindMlog, 7), Birth: testBirth, Generation: 1, Epoch: 1,
		Extent: layout.Extent{Start: testStart, Blocks: SlotPages + finals},
	}
}

// attach opens the disk.
func (r *rig) attach(t testing.TB) {
	t.Helper()
	d, err := sim.Open(r.c.Sched, r.disk, sim.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.drive, r.c.Drive = d, d
}

func (r *rig) format(t testing.TB) {
	t.Helper()
	if err := Format(bg, r.c, 0); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) open(t testing.TB) *Log {
	t.Helper()
	l, err := Open(bg, r.c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newLog formats and opens a log.
func newTestLog(t testing.TB, finals uint32) (*rig, *Log) {
	t.Helper()
	r := newRig(t, nil, finals)
	r.format(t)
	return r, r.open(t)
}

func mustAppend(t testing.TB, l *Log, record ...[]byte) uint64 {
	t.Helper()
	n, err := l.Append(bg, record...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func mustSync(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Sync(bg); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(bg); err != nil {
		t.Fatal(err)
	}
}

// seeds is how many seeds a test runs through: n, or fewer where that takes long.
func seeds(n uint64) uint64 {
	if testing.Short() || raced {
		return max(1, n/5)
	}
	return n
}

// record makes the bytes of record n of a given size: no two are alike, in any
// place of any record.
func record(n uint64, size int) []byte {
	b := make([]byte, size)
	x := n*0x9e3779b97f4a7c15 + uint64(size) + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// readAll reads a log to its end.
func readAll(l *Log, o ReaderOptions) ([][]byte, error) {
	r := l.NewReader(o)
	defer r.Close()
	var list [][]byte
	for {
		b, err := r.NextAppend(bg, nil)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, b)
	}
}

func sameRecords(got, want [][]byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("record %d differs: %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
	return nil
}

// checkLog compares what a log has, by every way of reading it.
func checkLog(t testing.TB, r *rig, want [][]byte) {
	t.Helper()
	c := r.c
	var replayed [][]byte
	c.Replay = func(n uint64, b []byte) error {
		if n != uint64(len(replayed)) {
			return fmt.Errorf("record %d replayed as %d", len(replayed), n)
		}
		replayed = append(replayed, bytes.Clone(b))
		return nil
	}
	l, err := Open(bg, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameRecords(replayed, want); err != nil {
		t.Fatalf("replay: %v", err)
	}
	got, err := readAll(l, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := sameRecords(got, want); err != nil {
		t.Fatalf("read: %v", err)
	}
	size := int64(0)
	for _, b := range want {
		size += int64(len(b))
	}
	if n, b := l.Len(); n != uint64(len(want)) || b != size {
		t.Fatalf("Len = %d, %d, want %d, %d", n, b, len(want), size)
	}
	mustClose(t, l)
}
