package mblock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
)

// benchDevice names a block device or file of at least 256 MiB that the
// benchmarks may overwrite; without it they use a new file.
const benchDevice = "MPOOL_BENCH_DEVICE"

func benchDrive(b *testing.B) *bdev.Drive {
	b.Helper()
	path := os.Getenv(benchDevice)
	if path == "" {
		return openFile(b, 256<<20, bdev.Auto)
	}
	d, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}

func benchConfig(d *bdev.Drive, size int64, n uint64) Config {
	return Config{
		Drive: d, Extent: layout.Extent{Start: n % 4 * 8300, Blocks: BlocksFor(size)},
		ID: layout.NewObjectID(layout.KindMblock, n+1), Birth: layout.BirthStamp(n + 1), Capacity: size,
	}
}

// BenchmarkWriteSeal writes 32 MiB and seals, and beside it does the same I/O
// without an mblock.
func BenchmarkWriteSeal(b *testing.B) {
	const size = 32 << 20
	d := benchDrive(b)
	data := bdev.AllocBuffer(size)
	defer bdev.FreeBuffer(data)
	copy(data, random(size, 1))
	ends, cancel := context.WithCancel(b.Context())
	defer cancel()
	write := func(ctx context.Context, b *testing.B, call int) {
		b.Helper()
		b.SetBytes(size)
		b.ReportAllocs()
		for n := uint64(0); b.Loop(); n++ {
			w := NewWriter(benchConfig(d, size, n))
			for at := 0; at < size; at += call {
				if _, err := w.Write(ctx, data[at:at+call]); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Seal(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	for range 3 { // alternated: the machine is noisy
		b.Run("raw", func(b *testing.B) { benchRaw(b, d, data) })
		b.Run("one call", func(b *testing.B) { write(context.Background(), b, size) })
		b.Run("1 MiB calls", func(b *testing.B) { write(context.Background(), b, 1<<20) })
		b.Run("copied", func(b *testing.B) { write(ends, b, size) })
	}
}

// benchRaw writes and flushes 32 MiB and 9 pages with the same operations.
func benchRaw(b *testing.B, d *bdev.Drive, data []byte) {
	b.Helper()
	b.SetBytes(int64(len(data)))
	for n := uint64(0); b.Loop(); n++ {
		at := int64(n % 4 * 8300 * blockSize)
		ticket := d.Ticket()
		for from := 0; from < len(data); from += 8 << 20 {
			var batch bdev.Batch
			for k := from; k < from+8<<20; k += writePiece {
				batch.Ops = append(batch.Ops, &bdev.Op{Code: bdev.OpWrite, Offset: at + int64(k), Buf: data[k : k+writePiece]})
			}
			if err := d.Run(context.Background(), &batch); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Flush(context.Background(), ticket); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 32 << 20
	d := benchDrive(b)
	c := benchConfig(d, size, 0)
	w := NewWriter(c)
	if _, err := w.Write(context.Background(), random(size, 1)); err != nil {
		b.Fatal(err)
	}
	s, err := w.Seal(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	r := NewReader(c, object(c, s), NewSums(nil, 1<<20), true)
	blind := NewReader(c, object(c, s), nil, false)
	ends, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 3 {
		for _, n := range []int{4 << 10, 1 << 20, 16 << 20} {
			name := fmt.Sprintf("%dKiB", n>>10)
			b.Run(name+"/raw", func(b *testing.B) {
				bench1(b, n, size, func(p []byte, off int64) error {
					return d.Run(context.Background(), &bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Offset: c.Extent.Offset() + off, Buf: p}}})
				})
			})
			b.Run(name+"/unverified", func(b *testing.B) {
				bench1(b, n, size, func(p []byte, off int64) error { return second(blind.ReadAt(context.Background(), p, off)) })
			})
			b.Run(name+"/verified", func(b *testing.B) {
				bench1(b, n, size, func(p []byte, off int64) error { return second(r.ReadAt(context.Background(), p, off)) })
			})
			b.Run(name+"/copied", func(b *testing.B) {
				bench1(b, n, size, func(p []byte, off int64) error { return second(r.ReadAt(ends, p, off)) })
			})
		}
	}
}

func bench1(b *testing.B, n int, size int64, read func(p []byte, off int64) error) {
	b.Helper()
	p := bdev.AllocBuffer(n)
	defer bdev.FreeBuffer(p)
	rng := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		if err := read(p, rng.Int64N(size/int64(n))*int64(n)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBeginEnd is what the read path itself costs, without a device:
// lookup of the checksum, verification, pins.
func BenchmarkBeginEnd(b *testing.B) {
	const size = 32 << 20
	r := newRig(b, nil, diskFor(size))
	data := random(size, 1)
	c, o := r.write(data)
	reader := NewReader(c, o, NewSums(nil, 1<<20), true)
	for _, n := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			p := bdev.AllocBuffer(n)
			defer bdev.FreeBuffer(p)
			copy(p, data)
			if _, err := reader.ReadAt(context.Background(), p, 0); err != nil {
				b.Fatal(err)
			}
			var op ReadOp
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if err := reader.BeginRead(&op, p, 0); err != nil {
					b.Fatal(err)
				}
				if _, err := op.End(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
