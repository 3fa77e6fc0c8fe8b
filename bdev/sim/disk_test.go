package sim

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/bdev"
)

func TestDirectAccess(t *testing.T) {
	d := NewDisk(16<<10, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{})
	if err := do(drive, writeOp(0, letters(8, 'A'))); err != nil {
		t.Fatal(err)
	}
	if n, err := d.WriteAt([]byte("xyz"), 4095); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	var three [3]byte
	if n, err := d.Durable().ReadAt(three[:], 4095); n != 3 || err != nil || string(three[:]) != "xyz" {
		t.Fatal(n, err, three)
	}
	if n, err := d.ReadAt(make([]byte, 10), d.Size()-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Fatal(n, err)
	}
	if _, err := d.WriteAt(three[:], d.Size()-1); !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
	// The sector that was written raw is durable, the others still volatile.
	if got := picture(d.Durable())[:8]; got != ".......#" {
		t.Fatal(got)
	}
	if err := do(drive, &bdev.Op{Code: bdev.OpFlush}); err != nil {
		t.Fatal(err)
	}
	if a, b := picture(d), picture(d.Durable()); a != b || a[:8] != "AAAAAAA#" {
		t.Fatal(a, b)
	}
}

func TestFlipBitIsSeenEverywhere(t *testing.T) {
	d := NewDisk(16<<10, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{})
	if err := do(drive, writeOp(0, letters(8, 'A')), &bdev.Op{Code: bdev.OpFlush}, writeOp(512, letters(1, 'B'))); err != nil {
		t.Fatal(err)
	}
	before := d.Clone()
	for _, off := range []int64{100, 600, 8192} {
		d.FlipBit(off, 3)
	}
	for _, x := range []*Disk{d, d.Durable()} {
		for _, off := range []int64{100, 600, 8192} {
			var got, want [1]byte
			if _, err := x.ReadAt(got[:], off); err != nil {
				t.Fatal(err)
			}
			original := before
			if x != d {
				original = before.Durable()
			}
			if _, err := original.ReadAt(want[:], off); err != nil {
				t.Fatal(err)
			}
			if got[0] != want[0]^8 {
				t.Errorf("byte %d is %x, was %x", off, got, want)
			}
		}
	}
	if err := do(drive, &bdev.Op{Code: bdev.OpFlush}); err != nil {
		t.Fatal(err)
	}
	if a, b := picture(d), picture(d.Durable()); a != b || a[:4] != "##AA" {
		t.Fatal(a, b)
	}
}

func TestUnreadableSectorHealsWhenWrittenWhole(t *testing.T) {
	d := NewDisk(16<<10, DiskOptions{PhysicalSector: 4096})
	drive := mustOpen(t, nil, d, OpenOptions{})
	d.SetUnreadable(4096+700, 1)
	for _, o := range []*bdev.Op{readOp(4096, 512), readOp(0, 8192), writeOp(4096, letters(1, 'A'))} {
		if err := do(drive, o); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%v at %d: %v", o.Code, o.Offset, err)
		}
	}
	if err := do(drive, readOp(0, 4096), readOp(8192, 4096), writeOp(4096, letters(8, 'A')), readOp(4096, 512)); err != nil {
		t.Fatal(err)
	}
	// Not flushed: the write may be lost, and the sector is as it was.
	if got := picture(d.Durable())[9:17]; got != "????????" {
		t.Fatal(got)
	}
	if err := do(drive, &bdev.Op{Code: bdev.OpFlush}); err != nil {
		t.Fatal(err)
	}
	if got := picture(d.Durable())[9:17]; got != "AAAAAAAA" {
		t.Fatal(got)
	}
}
