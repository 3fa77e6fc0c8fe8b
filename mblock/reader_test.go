package mblock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// proves S13
func TestReadsOfAnyOffsetAndLength(t *testing.T) {
	sizes := []int{1, 5000, 16 * blockSize, 17*blockSize + 1, 2*bounceRead + 12345, directRead + 3*blockSize}
	if raced { // one task at a time: there is nothing to race
		sizes = sizes[3:4]
	}
	for _, size := range sizes {
		data := random(size, uint64(size))
		var o layout.Object
		written := diskFor(int64(size))
		simulate(t, 1, func(s *sched.Sched) { _, o = newRig(t, s, written).write(data) })
		rapid.Check(t, func(rt *rapid.T) {
			// All is drawn before: rapid and the simulator both unwind by panics.
			verify := rapid.Bool().Draw(rt, "verify")
			reads := make([]readPlan, min(1+(1<<20)/size, 20))
			for i := range reads {
				reads[i] = drawRead(rt, size)
			}
			simulate(t, 1, func(s *sched.Sched) {
				r := newRig(t, s, written.Clone())
				c := r.config(int64(size))
				c.ID, c.Birth = o.ID, o.Birth
				reader := NewReader(c, o, NewSums(s, 1<<20), verify)
				for _, p := range reads {
					if err := p.try(s, reader, data); err != nil {
						t.Errorf("%+v of %d bytes: %v", p, size, err)
					}
				}
				if r.pins.Load() != 0 {
					t.Errorf("%d pins are left", r.pins.Load())
				}
			})
			if t.Failed() {
				rt.FailNow()
			}
		})
	}
}

// readPlan is one read.
type readPlan struct {
	off, n, skip int // skip: bytes by which the memory is not aligned
	canEnd       bool
}

func drawRead(t *rapid.T, size int) readPlan {
	p := readPlan{
		off:    rapid.IntRange(0, size+2*blockSize).Draw(t, "off"),
		n:      rapid.IntRange(0, size+blockSize).Draw(t, "n"),
		skip:   rapid.SampledFrom([]int{0, 0, 1, 512}).Draw(t, "skip"),
		canEnd: rapid.Bool().Draw(t, "can end"),
	}
	if rapid.Bool().Draw(t, "aligned") {
		p.off, p.n, p.skip = p.off&^(blockSize-1), p.n&^(blockSize-1), 0
	}
	return p
}

func (plan readPlan) try(s *sched.Sched, r *Reader, data []byte) error {
	ctx := context.Background()
	if plan.canEnd {
		var cancel context.CancelFunc
		ctx, cancel = s.WithCancel(ctx)
		defer cancel()
	}
	room := alignedBytes(plan.n+blockSize, plan.skip)
	for i := range room {
		room[i] = 0xa5
	}
	p := room[:plan.n:plan.n]
	got, err := r.ReadAt(ctx, p, int64(plan.off))
	want := min(plan.n, max(len(data)-plan.off, 0))
	switch {
	case got != want || (got < plan.n) != isEOF(err) || got == plan.n && err != nil:
		return fmt.Errorf("%d, %w; want %d", got, err, want)
	case got > 0 && !bytes.Equal(p[:got], data[plan.off:plan.off+got]):
		return errors.New("wrong bytes")
	case len(bytes.Trim(room[plan.n:], "\xa5")) != 0:
		return errors.New("it wrote past the end of the caller's memory")
	}
	return nil
}

func TestReadErrors(t *testing.T) {
	r := newRig(t, nil, diskFor(blockSize))
	c, o := r.write(random(100, 1))
	reader := NewReader(c, o, nil, true)
	if _, err := reader.ReadAt(context.Background(), make([]byte, 1), -1); !errors.Is(err, api.EINVAL) {
		t.Errorf("negative offset: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := reader.ReadAt(ctx, make([]byte, 1), 0); !errors.Is(err, api.ECANCELED) {
		t.Errorf("canceled: %v", err)
	}
	if err := reader.Verify(ctx); !errors.Is(err, api.ECANCELED) {
		t.Errorf("canceled: %v", err)
	}
	r.refuse.Store(true)
	for what, err := range map[string]error{
		"read":   second(reader.ReadAt(context.Background(), make([]byte, 1), 0)),
		"begin":  reader.BeginRead(new(ReadOp), make([]byte, 1), 0),
		"verify": reader.Verify(context.Background()),
	} {
		if !errors.Is(err, api.ENOENT) {
			t.Errorf("%s while deleting: %v", what, err)
		}
	}
	if r.pins.Load() != 0 {
		t.Errorf("%d pins", r.pins.Load())
	}
}

func second(_ int, err error) error { return err }

func TestRecordsThatContradictThemselves(t *testing.T) {
	r := newRig(t, nil, diskFor(100*blockSize))
	c, good := r.write(random(10*blockSize, 1))
	for name, change := range map[string]func(c *Config){
		"longer than an mblock": func(*Config) { good.Written = 1 << 63 },
		"longer than extent":    func(c *Config) { c.Extent.Blocks = 9 },
		"too few checksums":     func(*Config) { good.Sums = good.Sums[:9] },
		"no checksums":          func(*Config) { good.Sums = nil },
		"checksums twice":       func(*Config) { good.Written = 20 * blockSize },
	} {
		c, o := c, good
		change(&c)
		good, o = o, good
		reader := NewReader(c, o, nil, true)
		_, err := reader.ReadAt(context.Background(), make([]byte, 10), 0)
		if !errors.Is(err, api.ECORRUPT) || !errors.Is(reader.Verify(context.Background()), api.ECORRUPT) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The operations of a read can be started in any way; here by hand.
func TestBeginAndEnd(t *testing.T) {
	const size = 3000 * blockSize
	r := newRig(t, nil, diskFor(size))
	data := random(size, 8)
	c, o := r.write(data)
	cache := NewSums(nil, 1<<20)
	reader := NewReader(c, o, cache, true)
	var op ReadOp
	do := func(p []byte, off int64, wantOps int, wantDirect bool) (int, error) {
		t.Helper()
		if err := reader.BeginRead(&op, p, off); err != nil {
			t.Fatal(err)
		}
		if len(op.Ops()) != wantOps || op.Direct() != wantDirect {
			t.Errorf("read %d+%d: %d operations, direct %v", off, len(p), len(op.Ops()), op.Direct())
		}
		for _, o := range op.Ops() {
			r.drive.Start(o)
		}
		return op.End()
	}
	p := alignedBytes(1200*blockSize, 0)
	for _, c := range []struct {
		off, n, ops int
		direct      bool
	}{
		{0, 1, 2, true},        // the first page is not known yet
		{1, 1, 1, true},        // now it is
		{900, 1200, 2, true},   // two more pages, all three read at once
		{1500, 1100, 1, true},  // all known
		{2999, 1, 1, true},     // the last block
		{2999, 1200, 1, true},  // and past it
		{3000, 1, 0, false},    // nothing there
		{3000, 0, 0, false},    // nothing wanted
		{100000, 10, 0, false}, // far away
	} {
		n, err := do(p[:c.n*blockSize], int64(c.off)*blockSize, c.ops, c.direct)
		want := data[min(c.off*blockSize, size):min((c.off+c.n)*blockSize, size)]
		if n != len(want) || (n < c.n*blockSize) != isEOF(err) || !bytes.Equal(p[:n], want) {
			t.Errorf("read %d+%d: %d, %v", c.off, c.n, n, err)
		}
	}
	if n, err := do(p[1:5000], 77, 1, false); n != 4999 || err != nil || !bytes.Equal(p[1:5000], data[77:77+4999]) {
		t.Errorf("unaligned: %d, %v", n, err)
	}
	if err := reader.BeginRead(&op, p, 0); err != nil {
		t.Fatal(err)
	}
	op.Cancel()
	if r.pins.Load() != 0 {
		t.Errorf("%d pins", r.pins.Load())
	}
}

func TestSteadyReadsAllocateNothing(t *testing.T) {
	const size = 100 * blockSize
	r := newRig(t, nil, diskFor(size))
	data := random(size, 8)
	c, o := r.write(data)
	reader := NewReader(c, o, NewSums(nil, 1<<20), true)
	var op ReadOp
	p := bdev.AllocBuffer(blockSize)
	defer bdev.FreeBuffer(p)
	var off int64
	run := func() {
		if err := reader.BeginRead(&op, p, off); err != nil {
			t.Fatal(err)
		}
		copy(p, data[off:]) // as the device would; it allocates
		if n, err := op.End(); n != blockSize || err != nil {
			t.Fatal(n, err)
		}
		off = (off + blockSize) % size
	}
	if _, err := reader.ReadAt(context.Background(), p, 0); err != nil { // makes the page known
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(500, run); n != 0 {
		t.Errorf("%v allocations a read", n)
	}
}

// Large reads fetch the checksum pages that the next ones need, once. What is read
// ahead and is not good matters to nobody before it is needed.
//
// proves S14
func TestChecksumPagesAreReadAhead(t *testing.T) {
	const pages, part = 5, bulkBlocks * blockSize
	d := newDamaged(t, (pages*PageSums-100)*blockSize)
	blocks := dataBlocks(int64(len(d.data)))
	r := NewReader(d.c, d.o, NewSums(nil, 1<<20), true)
	p := alignedBytes(part, 0)
	before := d.drive.Stats().Reads
	reads := uint64(0)
	for off := 0; off < len(d.data); off += part {
		n, err := r.ReadAt(context.Background(), p, int64(off))
		if err != nil && !isEOF(err) || !bytes.Equal(p[:n], d.data[off:off+n]) {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
		reads++
	}
	// One of the page that the first read needs, and one of those behind it.
	if got := d.drive.Stats().Reads - before; got != reads+2 {
		t.Errorf("%d reads of the drive, want %d", got, reads+2)
	}

	// Who reads here and there has no use for what is behind.
	r = NewReader(d.c, d.o, NewSums(nil, 1<<20), true)
	before = d.drive.Stats().Reads
	for _, page := range []int64{3, 1} {
		if _, err := r.ReadAt(context.Background(), p, page*PageSums*blockSize); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.drive.Stats().Reads - before; got != 4 {
		t.Errorf("two reads apart from each other: %d of the drive, want 4", got)
	}

	at := d.c.Extent.Offset() + int64(blocks+2)*blockSize
	whole := d.disk
	for want, damage := range map[api.Code]func(*sim.Disk){
		api.ECORRUPT: func(disk *sim.Disk) { disk.FlipBit(at+40, 0) },
		api.EIO:      func(disk *sim.Disk) { disk.SetUnreadable(at, blockSize) },
	} {
		disk := whole.Clone()
		damage(disk)
		r := NewReader(on(t, d.c, disk), d.o, NewSums(nil, 1<<20), true)
		for page := range uint32(pages) {
			off := int64(page) * PageSums * blockSize
			switch n, err := r.ReadAt(context.Background(), p, off); {
			case page == 2:
				if !errors.Is(err, want) || n != 0 {
					t.Errorf("behind a page that is %v: %d, %v", want, n, err)
				}
			case err != nil || !bytes.Equal(p[:n], d.data[off:off+int64(n)]):
				t.Errorf("page %d: %d, %v", page, n, err)
			}
		}
	}
}
