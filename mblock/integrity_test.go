package mblock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

// damaged is a committed mblock whose media can be changed.
type damaged struct {
	*rig
	c    Config
	o    layout.Object
	data []byte
}

func newDamaged(tb testing.TB, size int) *damaged {
	tb.Helper()
	// Room behind it, for blocks of another object.
	disk := sim.NewDisk((rigStart+2*int64(BlocksFor(int64(size))))*blockSize, sim.DiskOptions{})
	d := &damaged{rig: newRig(tb, nil, disk), data: random(size, uint64(size))}
	d.c, d.o = d.write(d.data)
	return d
}

// block returns a block of the extent as it is on the disk.
func (d *damaged) block(i uint32) []byte {
	p := make([]byte, blockSize)
	if _, err := d.disk.ReadAt(p, d.c.Extent.Offset()+int64(i)*blockSize); err != nil {
		d.tb.Fatal(err)
	}
	return p
}

func (d *damaged) put(i uint32, p []byte) {
	if _, err := d.disk.WriteAt(p, d.c.Extent.Offset()+int64(i)*blockSize); err != nil {
		d.tb.Fatal(err)
	}
}

// mustFind fails unless every way of reading what depends on a block of the
// extent finds it corrupt, and what does not can be read.
func (d *damaged) mustFind(what string, block uint32) {
	d.tb.Helper()
	r := NewReader(d.c, d.o, NewSums(nil, 1<<20), true)
	at := d.c.Extent.Offset() + int64(block)*blockSize
	is := func(err error) {
		d.tb.Helper()
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.ECORRUPT || e.Device != "sim" || e.Offset != at || e.Object != d.o.ID || e.Detail == "" {
			d.tb.Fatalf("%s: %v; want ECORRUPT at %d", what, err, at)
		}
	}
	is(r.Verify(context.Background()))
	first, n := block, 1 // data blocks that depend on it
	if data := dataBlocks(int64(len(d.data))); block >= data {
		first = (block - data) * PageSums
		n = int(sumsIn(data, block-data))
	}
	for _, p := range [][]byte{alignedBytes(blockSize, 0), alignedBytes(blockSize, 1)} {
		got, err := r.ReadAt(context.Background(), p, int64(first)*blockSize)
		is(err)
		if got != 0 || len(bytes.Trim(p, "\x00")) != 0 {
			d.tb.Fatalf("%s: %d bytes of a corrupt block were given out", what, got)
		}
	}
	// From the beginning: everything before it, nothing from it on.
	p := alignedBytes(len(d.data)+blockSize, 0)
	got, err := r.ReadAt(context.Background(), p, 0)
	is(err)
	if n == 1 && got != int(first)*blockSize || !bytes.Equal(p[:got], d.data[:got]) {
		d.tb.Fatalf("%s: %d bytes before block %d", what, got, first)
	}
	if len(bytes.Trim(p[got:], "\x00")) != 0 {
		d.tb.Fatalf("%s: wrong bytes were left in memory", what)
	}
	if end := (int(first) + n) * blockSize; end < len(d.data) {
		got, err := r.ReadAt(context.Background(), p[:len(d.data)-end], int64(end))
		if err != nil || !bytes.Equal(p[:got], d.data[end:]) {
			d.tb.Fatalf("%s: behind it: %d, %v", what, got, err)
		}
	}
	// Who does not verify gets data, right or wrong, but no error.
	if block < dataBlocks(int64(len(d.data))) {
		blind := NewReader(d.c, d.o, nil, false)
		if _, err := blind.ReadAt(context.Background(), p[:len(d.data)], 0); err != nil {
			d.tb.Fatalf("%s: without verifying: %v", what, err)
		}
		is(blind.Verify(context.Background()))
	}
}

func (d *damaged) mustBeWhole() {
	d.tb.Helper()
	r := NewReader(d.c, d.o, nil, true)
	readAll(d.tb, r, d.data)
	if err := r.Verify(context.Background()); err != nil {
		d.tb.Fatal(err)
	}
}

// proves S14
//
// Every single bit of a small mblock.
func TestEveryFlippedBitOfAnMblockIsFound(t *testing.T) {
	d := newDamaged(t, blockSize+100)
	r := NewReader(d.c, d.o, nil, true)
	p := bdev.AllocBuffer(2 * blockSize)
	defer bdev.FreeBuffer(p)
	step := 1
	if testing.Short() {
		step = 61
	}
	for bit := 0; bit < 2*blockSize*8; bit += step { // the padding too
		at := d.c.Extent.Offset() + int64(bit/8)
		d.disk.FlipBit(at, uint(bit%8))
		n, err := r.ReadAt(context.Background(), p, 0)
		if !errors.Is(err, api.ECORRUPT) || n != bit/8/blockSize*blockSize {
			t.Fatalf("bit %d flipped: %d, %v", bit, n, err)
		}
		d.disk.FlipBit(at, uint(bit%8))
	}
	d.mustBeWhole()
}

// proves S14
//
// Every block of small and of larger mblocks, their checksum pages included:
// flipped, lost, torn, exchanged with every other block, replaced by the same
// block of the space's former object.
func TestEveryWrongBlockIsFound(t *testing.T) {
	for _, size := range []int{blockSize, 5*blockSize - 7, 16 * blockSize, 17 * blockSize, 20*blockSize + 1, 1018 * blockSize} {
		t.Run(fmt.Sprintf("%d", size), func(t *testing.T) {
			d := newDamaged(t, size)
			// A former object in the same place, of the same bytes.
			former := make(map[uint32][]byte)
			total := BlocksFor(int64(size))
			c, _ := d.write(d.data)
			for i := range total {
				former[i] = d.block(i)
			}
			d.c, d.o = d.write(d.data)
			if c.Birth == d.c.Birth {
				t.Fatal("the same birth stamp")
			}
			d.mustBeWhole()
			chosen := func(i uint32) bool {
				switch {
				case size >= 100*blockSize:
					return i < 2 || i+4 > total
				case raced: // one task at a time: there is nothing to race
					return i%8 == 0 || i+2 > total
				}
				return true
			}
			for i := range total {
				if !chosen(i) {
					continue
				}
				right := d.block(i)
				wrong := map[string][]byte{
					"flipped":  bytes.Clone(right),
					"lost":     make([]byte, blockSize),
					"torn":     append(bytes.Clone(right[:2048]), former[i][2048:]...),
					"inverted": bytes.Clone(right),
				}
				wrong["flipped"][int(i)*37%blockSize] ^= 1 << (i % 8)
				for k := range wrong["inverted"] {
					wrong["inverted"][k] ^= 0xff
				}
				if i >= dataBlocks(int64(size)) {
					wrong["former"] = former[i] // of data, it is the same bytes
				}
				for j := range total {
					if chosen(j) && j != i {
						wrong[fmt.Sprintf("misdirected from %d", j)] = d.block(j)
					}
				}
				for what, p := range wrong {
					if bytes.Equal(p, right) {
						continue
					}
					d.put(i, p)
					d.mustFind(fmt.Sprintf("block %d %s", i, what), i)
				}
				d.put(i, right)
			}
			d.mustBeWhole()
		})
	}
}

// proves S14
//
// Data of equal bytes is told apart by its birth stamp and place: a record that
// points to the wrong space is found out even if that holds another mblock.
func TestEqualBytesOfAnotherObjectAreFound(t *testing.T) {
	for _, size := range []int{3 * blockSize, 40 * blockSize} {
		d := newDamaged(t, size)
		for name, change := range map[string]func(c *Config, o *layout.Object){
			"birth":  func(c *Config, o *layout.Object) { c.Birth++; o.Birth++ },
			"shift":  func(c *Config, _ *layout.Object) { c.Extent.Start++ },
			"length": func(_ *Config, o *layout.Object) { o.Written -= blockSize; o.Sums = o.Sums[:max(len(o.Sums)-1, 0)] },
		} {
			c, o := d.c, d.o
			change(&c, &o)
			err := NewReader(c, o, nil, true).Verify(context.Background())
			if name == "length" && o.Sums != nil {
				continue // a shorter object of the same blocks: the record's own checksum guards it
			}
			if !errors.Is(err, api.ECORRUPT) {
				t.Errorf("%d bytes, other %s: %v", size, name, err)
			}
		}
	}
}

func TestCorruptionIsExplained(t *testing.T) {
	d := newDamaged(t, 40*blockSize)
	d.disk.FlipBit(d.c.Extent.Offset()+3*blockSize+17, 3)
	_, err := NewReader(d.c, d.o, nil, true).ReadAt(context.Background(), make([]byte, blockSize), 3*blockSize)
	if s := err.Error(); !strings.Contains(s, "block 3 ") || !strings.Contains(s, "sim+77824") ||
		strings.Count(s, "0x") != 2 || !strings.Contains(s, "ECORRUPT") {
		t.Errorf("%v", err)
	}
	d.disk.FlipBit(d.c.Extent.Offset()+40*blockSize+8, 0)
	_, err = NewReader(d.c, d.o, nil, true).ReadAt(context.Background(), make([]byte, blockSize), 0)
	if s := err.Error(); !strings.Contains(s, "blocks 0 to 39") || !strings.Contains(s, "birth stamp is 0x") {
		t.Errorf("%v", err)
	}
}

// Corruption of one mblock's page is not kept for anybody.
func TestCacheHoldsVerifiedPagesOnly(t *testing.T) {
	d := newDamaged(t, 40*blockSize)
	cache := NewSums(nil, 1<<20)
	r := NewReader(d.c, d.o, cache, true)
	p := make([]byte, 10)
	d.disk.FlipBit(d.c.Extent.Offset()+40*blockSize+40, 0)
	if _, err := r.ReadAt(context.Background(), p, 0); !errors.Is(err, api.ECORRUPT) || cache.pages() != 0 {
		t.Fatalf("%v, %d pages kept", err, cache.pages())
	}
	d.disk.FlipBit(d.c.Extent.Offset()+40*blockSize+40, 0)
	if _, err := r.ReadAt(context.Background(), p, 0); err != nil || cache.pages() != 1 {
		t.Fatalf("%v, %d pages kept", err, cache.pages())
	}
	before := d.drive.Stats().Reads
	if _, err := r.ReadAt(context.Background(), p, 39*blockSize); err != nil || d.drive.Stats().Reads != before+1 {
		t.Fatalf("%v, %d reads", err, d.drive.Stats().Reads-before)
	}
	// A scrub looks at the media, whatever the cache holds.
	d.disk.FlipBit(d.c.Extent.Offset()+40*blockSize+40, 0)
	if err := r.Verify(context.Background()); !errors.Is(err, api.ECORRUPT) {
		t.Fatalf("scrub: %v", err)
	}
}
