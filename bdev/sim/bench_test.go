package sim

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
)

// One 4 KiB write after another, a flush in 64.
func BenchmarkWrite4KInline(b *testing.B) {
	d := NewDisk(16<<20, DiskOptions{})
	drive, err := Open(nil, d, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	buf := letters(8, 'A')
	w := &bdev.Op{Code: bdev.OpWrite, Buf: buf}
	f := &bdev.Op{Code: bdev.OpFlush}
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Offset = int64(i*97%4096) * 4096
		drive.Start(w)
		if i%64 == 63 {
			drive.Start(f)
		}
	}
}

// The same in a simulation with latency: 16 at a time, waited for.
func BenchmarkWrite4KSimulated(b *testing.B) {
	d := NewDisk(16<<20, DiskOptions{})
	s := sched.New(1)
	b.SetBytes(4096)
	b.ReportAllocs()
	err := s.Run(func() {
		drive, err := Open(s, d, OpenOptions{})
		if err != nil {
			b.Fatal(err)
		}
		var batch bdev.Batch
		for range 16 {
			batch.Ops = append(batch.Ops, &bdev.Op{Code: bdev.OpWrite, Buf: letters(8, 'A')})
		}
		for i := 0; i < b.N; i += 16 {
			for k, o := range batch.Ops {
				o.Offset = int64((i+k)*97%4096) * 4096
			}
			if err := drive.Run(context.Background(), &batch); err != nil {
				b.Fatal(err)
			}
			if i%64 == 0 {
				if err := drive.Flush(context.Background(), drive.Ticket()); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
}

// One crash state: a survivor of a used 16 MiB disk with 200 pending writes of
// 4 KiB, opened.
func BenchmarkSurvivorAndOpen(b *testing.B) {
	d := NewDisk(16<<20, DiskOptions{PhysicalSector: 4096})
	drive, err := Open(nil, d, OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	write := func(n int) {
		for range n {
			if err := do(drive, writeOp(rng.Int64N(4096)*4096, letters(8, 'A'))); err != nil {
				b.Fatal(err)
			}
		}
	}
	write(2000)
	if err := do(drive, &bdev.Op{Code: bdev.OpFlush}); err != nil {
		b.Fatal(err)
	}
	write(200)
	b.ReportAllocs()
	for b.Loop() {
		n, _ := d.Survivor(rng, CutOptions{})
		if _, err := Open(nil, n, OpenOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewDisk64M(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		NewDisk(64<<20, DiskOptions{})
	}
}
