package mlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// mdcConfig places a container on a drive.
func mdcConfig(s *sched.Sched, d *bdev.Drive, finals uint32, epoch uint64) MDCConfig {
	blocks := SlotPages + finals
	at := func(i int) Config {
		return Config{
			Sched: s, Drive: d, Birth: testBirth + layout.BirthStamp(i), Epoch: epoch,
			ID:     layout.NewObjectID(layout.KindMlog, uint64(7+i)),
			Extent: layout.Extent{Start: uint64(testStart + i*int(blocks)), Blocks: blocks},
		}
	}
	return MDCConfig{A: at(0), B: at(1), Discover: true}
}

func mdcDisk(finals uint32, o sim.DiskOptions) *sim.Disk {
	return sim.NewDisk(int64(testStart+2*(SlotPages+finals)+16)*PageSize, o)
}

func newMDC(t *testing.T, finals uint32) (*sim.Disk, MDCConfig, *MDC) {
	t.Helper()
	disk := mdcDisk(finals, sim.DiskOptions{})
	d, err := sim.Open(nil, disk, sim.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := mdcConfig(nil, d, finals, 1)
	if err := CreateMDC(bg, c); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMDC(bg, c)
	if err != nil {
		t.Fatal(err)
	}
	return disk, c, m
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addTo(t *testing.T, m *MDC, list ...string) {
	t.Helper()
	for _, s := range list {
		_, err := m.Append(bg, []byte(s[:1]), []byte(s[1:]))
		do(t, err)
	}
}

func contentOf(r *MDCReader) (string, error) {
	var list []string
	for {
		b, err := r.View(bg)
		if errors.Is(err, io.EOF) {
			return strings.Join(list, " "), nil
		}
		if err != nil {
			return strings.Join(list, " "), err
		}
		list = append(list, string(b))
	}
}

func wantContent(t *testing.T, m *MDC, want string) {
	t.Helper()
	r := m.NewReader(ReaderOptions{})
	defer r.Close()
	if got, err := contentOf(r); err != nil || got != want {
		t.Fatalf("content %q, %v, want %q", got, err, want)
	}
}

// reopenMDC closes a container and opens it, comparing what is replayed.
func reopenMDC(t *testing.T, m *MDC, c MDCConfig, want string) *MDC {
	t.Helper()
	do(t, m.Close(bg))
	var list []string
	c.Replay = func(b []byte) error {
		list = append(list, string(b))
		return nil
	}
	c.Reset = func() { list = nil }
	m, err := OpenMDC(bg, c)
	do(t, err)
	if got := strings.Join(list, " "); got != want {
		t.Fatalf("replayed %q, want %q", got, want)
	}
	return m
}

// proves S26
func TestCompaction(t *testing.T) {
	_, c, m := newMDC(t, 20)
	addTo(t, m, "a1", "b1", "a2")
	do(t, m.Sync(bg))
	wantContent(t, m, "a1 b1 a2")
	r := m.NewReader(ReaderOptions{})
	defer r.Close()
	_, err := r.View(bg)
	do(t, err)
	for round := range 3 {
		do(t, m.CompactStart(bg))
		if err := m.CompactStart(bg); !errors.Is(err, api.ESTATE) {
			t.Fatal(err)
		}
		do(t, m.CompactAppend(bg, []byte("a"), []byte("2")))
		addTo(t, m, "c1")
		do(t, m.CompactAppend(bg, []byte("b1")))
		if round == 0 {
			if b, err := r.View(bg); err != nil || string(b) != "b1" {
				t.Fatal(string(b), err)
			}
		}
		do(t, m.CompactEnd(bg))
		if err := m.CompactEnd(bg); !errors.Is(err, api.ESTATE) {
			t.Fatal(err)
		}
		if _, err := r.View(bg); !errors.Is(err, api.ESTALE) {
			t.Fatal(err)
		}
		if err := r.Seek(bg, 0); !errors.Is(err, api.ESTALE) {
			t.Fatal(err)
		}
		r.Rewind()
		if got, err := contentOf(r); err != nil || got != "a2 c1 b1" {
			t.Fatal(got, err)
		}
	}
	addTo(t, m, "d1")
	do(t, m.Sync(bg))
	for n, want := range []string{"a2", "c1", "b1", "d1"} {
		do(t, r.Seek(bg, uint64(n)))
		if got := r.Record(); got != uint64(n) {
			t.Fatalf("Record = %d, want %d", got, n)
		}
		if _, err := r.Next(bg, make([]byte, 1)); !errors.Is(err, api.EOVERFLOW) {
			t.Fatal(err)
		}
		p := make([]byte, 2)
		if n, err := r.Next(bg, p); err != nil || string(p[:n]) != want {
			t.Fatal(string(p[:n]), err)
		}
		if got := r.Record(); got != uint64(n)+1 {
			t.Fatalf("Record = %d, want %d", got, n+1)
		}
	}
	if err := r.Seek(bg, 5); !errors.Is(err, api.ENOENT) {
		t.Fatal(err)
	}
	m = reopenMDC(t, m, c, "a2 c1 b1 d1")
	if used, capacity := m.Usage(); used <= 0 || capacity != 20*PayloadSize {
		t.Fatal(used, capacity)
	}
	do(t, m.Close(bg))
}

// proves S26
//
// A compaction that is given up, in every way, leaves the old content, and
// nothing of it is found by the next one.
func TestCompactionGivenUp(t *testing.T) {
	disk, c, m := newMDC(t, 20)
	addTo(t, m, "a1")
	do(t, m.CompactStart(bg))
	do(t, m.CompactAppend(bg, []byte("xx")))
	addTo(t, m, "a2")
	do(t, m.CompactSync(bg))
	do(t, m.CompactAbort(bg))
	if err := m.CompactAbort(bg); !errors.Is(err, api.ESTATE) {
		t.Fatal(err)
	}
	if err := m.CompactAppend(bg, nil); !errors.Is(err, api.ESTATE) {
		t.Fatal(err)
	}
	addTo(t, m, "a3")
	m = reopenMDC(t, m, c, "a1 a2 a3")

	// Closed in the middle.
	do(t, m.CompactStart(bg))
	do(t, m.CompactAppend(bg, []byte("xx")))
	do(t, m.CompactSync(bg))
	m = reopenMDC(t, m, c, "a1 a2 a3")

	// The new log gets full: by the compaction, and by an append.
	do(t, m.CompactStart(bg))
	if err := m.CompactAppend(bg, make([]byte, 20*PageSize)); !errors.Is(err, api.EFBIG) {
		t.Fatal(err)
	}
	if err := m.CompactEnd(bg); !errors.Is(err, api.EFBIG) {
		t.Fatal(err)
	}
	do(t, m.CompactStart(bg))
	do(t, m.CompactAppend(bg, make([]byte, 19*PageSize)))
	big := string(make([]byte, PageSize))
	addTo(t, m, "c"+big, "d"+big)
	if err := m.CompactEnd(bg); !errors.Is(err, api.EFBIG) {
		t.Fatal(err)
	}
	m = reopenMDC(t, m, c, "a1 a2 a3 c"+big+" d"+big)

	// A write of the new log fails: the old one goes on.
	do(t, m.CompactStart(bg))
	disk.Inject(sim.Fault{Code: bdev.OpWrite, From: c.B.Extent.Offset(), To: c.B.Extent.Offset() + c.B.Extent.Size(), Count: 1, Err: syscall.EIO})
	do(t, m.CompactAppend(bg, []byte("xx")))
	if err := m.CompactEnd(bg); !errors.Is(err, api.EUNKNOWN) {
		t.Fatal(err)
	}
	addTo(t, m, "a4")
	do(t, m.Sync(bg))
	do(t, m.CompactStart(bg))
	do(t, m.CompactAppend(bg, []byte("z1")))
	addTo(t, m, "z2")
	do(t, m.CompactEnd(bg))
	m = reopenMDC(t, m, c, "z1 z2")
	do(t, m.Close(bg))
}

// proves S26, S40
//
// A switch whose end mark may or may not be durable poisons the container.
func TestCompactionUnknown(t *testing.T) {
	disk, c, m := newMDC(t, 20)
	var told error
	m.c.OnFailure = func(err error) { told = err }
	addTo(t, m, "a1")
	do(t, m.Sync(bg))
	do(t, m.CompactStart(bg))
	do(t, m.CompactAppend(bg, []byte("b1")))
	do(t, m.CompactSync(bg))
	disk.Inject(sim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
	if err := m.CompactEnd(bg); !errors.Is(err, api.EUNKNOWN) {
		t.Fatal(err)
	}
	if told == nil {
		t.Fatal("OnFailure was not called")
	}
	if _, err := m.Append(bg, []byte("a2")); !errors.Is(err, api.EIO) {
		t.Fatal(err)
	}
	do(t, m.Abandon())
	// After a failed flush it is not opened again but on a drive opened anew.
	if _, err := OpenMDC(bg, c); !errors.Is(err, bdev.ErrFlushFailed) {
		t.Fatal(err)
	}
	do(t, c.A.Drive.Close())
	d, err := sim.Open(nil, disk, sim.OpenOptions{})
	do(t, err)
	c.A.Drive, c.B.Drive = d, d
	m, err = OpenMDC(bg, c)
	do(t, err)
	r := m.NewReader(ReaderOptions{})
	defer r.Close()
	if got, err := contentOf(r); err != nil || got != "a1" && got != "b1" {
		t.Fatal(got, err)
	}
	do(t, m.Close(bg))
}

// Sequence numbers and OnDurable rise by one count across compactions.
func TestSequenceAcrossSwitches(t *testing.T) {
	_, c, m := newMDC(t, 50)
	addTo(t, m, "a1", "a2", "a3")
	do(t, m.Close(bg))
	var durable []uint64
	c.OnDurable = func(seq uint64) { durable = append(durable, seq) }
	m, err := OpenMDC(bg, c)
	do(t, err)
	want := uint64(0)
	for range 5 {
		for range 3 {
			seq, err := m.Append(bg, []byte("x"))
			if err != nil || seq != want {
				t.Fatalf("seq %d, %v, want %d", seq, err, want)
			}
			want++
			do(t, m.SyncTo(bg, seq+1))
			if n := len(durable); n == 0 || durable[n-1] != want {
				t.Fatalf("OnDurable: %v, want %d", durable, want)
			}
		}
		do(t, m.CompactStart(bg))
		for range 10 {
			do(t, m.CompactAppend(bg, []byte("y")))
		}
		seq, err := m.Append(bg, []byte("x"))
		if err != nil || seq != want {
			t.Fatalf("seq %d, %v, want %d", seq, err, want)
		}
		want++
		do(t, m.CompactEnd(bg))
	}
	if !slices.IsSorted(durable) || durable[len(durable)-1] != want {
		t.Fatal(durable, want)
	}
	do(t, m.Close(bg))
}

// proves S23, S26
//
// A log of the container that lost all its tails is not taken for one that was
// never used, and neither is a torn compaction's log for a good one.
func TestMDCWithoutTails(t *testing.T) {
	for _, i := range []int{0, 1} {
		disk, c, m := newMDC(t, 20)
		addTo(t, m, "a1")
		do(t, m.CompactStart(bg))
		do(t, m.CompactEnd(bg))
		do(t, m.Close(bg))
		for slot := range SlotPages {
			disk.FlipBit(c.log(i).Extent.Offset()+int64(slot)*PageSize+100, 3)
		}
		if _, err := OpenMDC(bg, c); !errors.Is(err, api.ECORRUPT) {
			t.Fatalf("log %d without tails: %v", i, err)
		}
	}
}

// The container of an application: the pool records generations and erases.
func TestMDCWithErase(t *testing.T) {
	_, c, m := newMDC(t, 20)
	do(t, m.Close(bg))
	c.Discover = false
	c.A.Generation, c.B.Generation = 1, 0
	fail := errors.New("not recorded")
	var refuse error
	c.Erase = func(ctx context.Context, which int, generation uint64) error {
		l := []*Config{&c.A, &c.B}[which]
		to := *l
		to.Generation = generation
		if err := Format(ctx, to, l.Generation); err != nil {
			return err
		}
		if refuse == nil {
			l.Generation = generation
		}
		return refuse
	}
	want := ""
	for round := range 6 {
		m, err := OpenMDC(bg, c)
		do(t, err)
		wantContent(t, m, want)
		refuse = nil
		if round%3 == 1 {
			refuse = fail
		}
		err = m.CompactStart(bg)
		if refuse != nil {
			if !errors.Is(err, fail) {
				t.Fatal(err)
			}
		} else {
			do(t, err)
			want = fmt.Sprint("r", round)
			do(t, m.CompactAppend(bg, []byte(want)))
			do(t, m.CompactEnd(bg))
		}
		do(t, m.Close(bg))
	}
}
