package mlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// memory is a device of plain memory: what is measured on it is our own cost.
type memory struct{ data []byte }

func (m *memory) Geometry() bdev.Geometry {
	return bdev.Geometry{Path: "memory", Size: int64(len(m.data)), LogicalSector: 4096, PhysicalSector: 4096}
}

func (m *memory) Name() string { return "memory" }

func (m *memory) Close() error { return nil }

func (m *memory) Await(ctx context.Context, c *sched.Completion) error { return c.Wait(ctx) }

func (m *memory) Start(ops []*bdev.Op) {
	for _, o := range ops {
		at := o.Offset
		vec := o.Vec
		if o.Buf != nil {
			vec = [][]byte{o.Buf}
		}
		for _, v := range vec {
			if o.Code == bdev.OpRead {
				copy(v, m.data[at:])
			} else {
				copy(m.data[at:], v)
			}
			at += int64(len(v))
		}
		o.Complete(nil)
	}
}

func memoryLog(b *testing.B, size int64) Config {
	b.Helper()
	m := &memory{make([]byte, size)}
	c := Config{
		Drive: bdev.NewDrive(nil, m), Birth: testBirth, Generation: 1, Epoch: 1,
		Extent: layout.Extent{Blocks: uint32(size / PageSize)},
	}
	if err := Format(bg, c, 0); err != nil {
		b.Fatal(err)
	}
	return c
}

func openBench(b *testing.B, c Config) *Log {
	b.Helper()
	l, err := Open(bg, c)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// renew gives an empty log when l is full.
func renew(b *testing.B, l *Log, c *Config) *Log {
	b.Helper()
	if err := l.Abandon(bg); err != nil {
		b.Fatal(err)
	}
	old := c.Generation
	c.Generation++
	if err := Format(bg, *c, old); err != nil {
		b.Fatal(err)
	}
	return openBench(b, *c)
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{16, 128, 4096, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := memoryLog(b, 256<<20)
			l := openBench(b, c)
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Append(bg, p); err != nil {
					b.StopTimer()
					l = renew(b, l, &c)
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkReplay opens a log of small records and reads it, by Replay and by a
// reader.
func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{16, 64, 256} {
		c := memoryLog(b, 256<<20)
		l := openBench(b, c)
		p := make([]byte, size)
		for l.FreeFor(int64(size)) {
			if _, err := l.Append(bg, p); err != nil {
				b.Fatal(err)
			}
		}
		n := l.Records()
		if err := l.Close(bg); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			for b.Loop() {
				seen := uint64(0)
				r := c
				r.Replay = func(uint64, []byte) error {
					seen++
					return nil
				}
				mustAbandon(openBench(b, r))
				if seen != n {
					b.Fatal(seen, n)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
		})
		b.Run(fmt.Sprintf("view/%d", size), func(b *testing.B) {
			l := openBench(b, c)
			defer mustAbandon(l)
			for b.Loop() {
				r := l.NewReader(ReaderOptions{})
				for {
					if _, err := r.View(bg); err != nil {
						if !errors.Is(err, io.EOF) {
							b.Fatal(err)
						}
						break
					}
				}
				r.Close()
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
		})
	}
}

// benchDevice opens the device that MLOG_BENCH_DEVICE names. Its content is
// lost.
func benchDevice(b *testing.B) (string, *bdev.Drive) {
	b.Helper()
	path := os.Getenv("MLOG_BENCH_DEVICE")
	if path == "" {
		b.Skip("MLOG_BENCH_DEVICE names no device")
	}
	engine := bdev.Auto
	if os.Getenv("MLOG_BENCH_ENGINE") == "pread" {
		engine = bdev.Pread
	}
	d, err := bdev.Open(bg, nil, path, bdev.OpenOptions{Engine: engine})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	return path, d
}

// BenchmarkAppendSync is the row mlog-sync: records of 128 bytes, each durable
// before the next of its appender.
func BenchmarkAppendSync(b *testing.B) {
	for _, appenders := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(appenders), func(b *testing.B) {
			_, d := benchDevice(b)
			c := Config{
				Drive: d, Birth: layout.BirthStamp(os.Getpid()), Generation: 1, Epoch: 1,
				Extent: layout.Extent{Blocks: uint32(min(d.Geometry().Size, 1<<30) / PageSize)},
			}
			if err := Format(bg, c, 0); err != nil {
				b.Fatal(err)
			}
			l := openBench(b, c)
			defer mustAbandon(l)
			b.ReportAllocs()
			b.ResetTimer()
			cpu := processCPU()
			appendAll(b, l, appenders, b.N)
			b.ReportMetric(float64(processCPU()-cpu)/float64(b.N), "cpu-ns/op")
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.ReportMetric(float64(b.N)/float64(l.Stats().Groups), "records/group")
		})
	}
}

// processCPU returns the processor time that the process has used, in ns.
func processCPU() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func appendAll(b *testing.B, l *Log, appenders, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	done := make(chan error, appenders)
	for range appenders {
		go func() {
			p := make([]byte, 128)
			for left.Add(-1) >= 0 {
				if _, err := l.AppendSync(bg, p); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range appenders {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPsync is the anchor of one appender: what fio's psync engine does
// with fdatasync=1.
func BenchmarkPsync(b *testing.B) {
	path, d := benchDevice(b)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := bdev.AllocBuffer(PageSize)
	defer bdev.FreeBuffer(p)
	clear(p)
	fd := int(f.Fd())
	at := int64(0)
	cpu := processCPU()
	for b.Loop() {
		if _, err := syscall.Pwrite(fd, p, at%(1<<30)); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(fd); err != nil {
			b.Fatal(err)
		}
		at += PageSize
	}
	b.ReportMetric(float64(processCPU()-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}
