// Command bdevbench measures random 4 KiB reads of a device through package
// bdev: by one goroutine that owns a queue, and by many that block. It prints
// operations per second and the process's CPU time for each.
//
//	bdevbench -dev /dev/loop0 -mode queue|run -depth 32 -time 2s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

const block = 4096

// options are the flags.
type options struct {
	dev, mode, engine string
	depth, batch      int
	limit             time.Duration
	deadline          bool
	offset, size      int64
	sum               bool
	profile           string
}

func main() {
	var o options
	flag.StringVar(&o.dev, "dev", "", "block device or file, at least 1 MiB")
	flag.StringVar(&o.mode, "mode", "queue", "queue: one goroutine with a queue; run: goroutines that block")
	flag.StringVar(&o.engine, "engine", "auto", "auto, io_uring or pread")
	flag.IntVar(&o.depth, "depth", 32, "operations under way")
	flag.IntVar(&o.batch, "batch", 1, "queue: how many operations to wait for at once")
	flag.DurationVar(&o.limit, "time", 2*time.Second, "how long")
	flag.BoolVar(&o.deadline, "deadline", false, "run: with a context that can end")
	flag.Int64Var(&o.offset, "offset", 0, "where the part that is read begins, bytes")
	flag.Int64Var(&o.size, "size", 0, "how long it is, bytes; 0: to the end")
	flag.BoolVar(&o.sum, "sum", false, "compute a checksum of what was read")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile there")
	flag.Parse()
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (o *options) run() error {
	kind := bdev.Auto
	for _, k := range []bdev.EngineKind{bdev.URing, bdev.Pread} {
		if k.String() == o.engine {
			kind = k
		}
	}
	d, err := bdev.Open(context.Background(), nil, o.dev, bdev.OpenOptions{ReadOnly: true, Engine: kind, MaxWorkers: 64})
	if err != nil {
		return err
	}
	defer d.Close()
	if o.size == 0 {
		o.size = d.Geometry().Size - o.offset
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	before, start := cpu(), time.Now()
	var n int64
	if o.mode == "queue" {
		n, err = o.byQueue(d, kind, start.Add(o.limit))
	} else {
		n, err = o.byRun(d, start.Add(o.limit))
	}
	if err != nil {
		return err
	}
	took := time.Since(start)
	fmt.Printf("%s %s depth %d: %.0f IOPS, %.2f CPU us/op\n", o.mode, d.EngineName(), o.depth,
		float64(n)/took.Seconds(), float64((cpu()-before).Microseconds())/float64(n))
	return nil
}

// castagnoli is the polynomial of mblocks' checksums.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// use reads what an operation read, if so asked.
func (o *options) use(p []byte) uint32 {
	if !o.sum {
		return 0
	}
	return crc32.Update(0, castagnoli, p)
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (o *options) byQueue(d *bdev.Drive, kind bdev.EngineKind, end time.Time) (int64, error) {
	depth := o.depth
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q, err := bdev.NewQueue(nil, bdev.QueueOptions{Depth: depth, Engine: kind})
	if err != nil {
		return 0, err
	}
	defer q.Close()
	mem := bdev.AllocBuffer(depth * block)
	defer bdev.FreeBuffer(mem)
	id, err := bdev.RegisterBuffer(q, mem)
	if err != nil && !errors.Is(err, bdev.ErrNotRegistered) {
		return 0, err
	}
	if r, ok := q.(bdev.Registrar); ok {
		if err := r.RegisterDrive(d); err != nil {
			return 0, err
		}
	}
	blocks := o.size / block
	rng := rand.New(rand.NewPCG(1, 2))
	var n int64
	var failed error
	stop := false
	next := func(op *bdev.Op) {
		n++
		if op.Err != nil {
			failed = op.Err
		}
		o.use(op.Buf)
		if !stop {
			op.Offset = o.offset + rng.Int64N(blocks)*block
			q.Put(op)
		}
	}
	for i := range depth {
		q.Put(&bdev.Op{
			Drive: d, Code: bdev.OpRead, Offset: o.offset + rng.Int64N(blocks)*block,
			Buf: mem[i*block : (i+1)*block], Fixed: id, OnDone: next,
		})
	}
	for i := 0; q.InFlight() > 0; i++ {
		if _, err := q.Reap(min(o.batch, q.InFlight())); err != nil {
			return n, err
		}
		stop = stop || failed != nil || (i%64 == 0 && !time.Now().Before(end))
	}
	return n, failed
}

func (o *options) byRun(d *bdev.Drive, end time.Time) (int64, error) {
	ctx := context.Background()
	if o.deadline {
		c, cancel := context.WithDeadline(ctx, end.Add(time.Minute))
		defer cancel()
		ctx = c
	}
	blocks := o.size / block
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for i := range o.depth {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			op := &bdev.Op{Code: bdev.OpRead, Buf: bdev.AllocBuffer(block)}
			defer bdev.FreeBuffer(op.Buf)
			b := &bdev.Batch{Ops: []*bdev.Op{op}}
			n := int64(0)
			for n%32 != 0 || time.Now().Before(end) {
				op.Offset = o.offset + rng.Int64N(blocks)*block
				if err := d.Run(ctx, b); err != nil {
					failed.Store(&err)
					return
				}
				o.use(op.Buf)
				n++
			}
			total.Add(n)
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return total.Load(), nil
}
