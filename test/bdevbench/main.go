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

func main() {
	dev := flag.String("dev", "", "block device or file, at least 1 MiB")
	mode := flag.String("mode", "queue", "queue: one goroutine with a queue; run: goroutines that block")
	engine := flag.String("engine", "auto", "auto, io_uring or pread")
	depth := flag.Int("depth", 32, "operations under way")
	limit := flag.Duration("time", 2*time.Second, "how long")
	deadline := flag.Bool("deadline", false, "run: with a context that can end")
	profile := flag.String("cpuprofile", "", "write a CPU profile there")
	flag.Parse()
	if err := run(*dev, *mode, *engine, *depth, *limit, *deadline, *profile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dev, mode, engine string, depth int, limit time.Duration, deadline bool, profile string) error {
	kind := bdev.Auto
	for _, k := range []bdev.EngineKind{bdev.URing, bdev.Pread} {
		if k.String() == engine {
			kind = k
		}
	}
	d, err := bdev.Open(context.Background(), nil, dev, bdev.OpenOptions{ReadOnly: true, Engine: kind, MaxWorkers: 64})
	if err != nil {
		return err
	}
	defer d.Close()
	if profile != "" {
		f, err := os.Create(profile)
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
	if mode == "queue" {
		n, err = byQueue(d, kind, depth, start.Add(limit))
	} else {
		n, err = byRun(d, depth, start.Add(limit), deadline)
	}
	if err != nil {
		return err
	}
	took := time.Since(start)
	fmt.Printf("%s %s depth %d: %.0f IOPS, %.2f CPU us/op\n", mode, d.EngineName(), depth,
		float64(n)/took.Seconds(), float64((cpu()-before).Microseconds())/float64(n))
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func byQueue(d *bdev.Drive, kind bdev.EngineKind, depth int, end time.Time) (int64, error) {
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
	blocks := d.Geometry().Size / block
	rng := rand.New(rand.NewPCG(1, 2))
	var n int64
	var failed error
	stop := false
	next := func(o *bdev.Op) {
		n++
		if o.Err != nil {
			failed = o.Err
		}
		if !stop {
			o.Offset = rng.Int64N(blocks) * block
			q.Put(o)
		}
	}
	for i := range depth {
		q.Put(&bdev.Op{
			Drive: d, Code: bdev.OpRead, Offset: rng.Int64N(blocks) * block,
			Buf: mem[i*block : (i+1)*block], Fixed: id, OnDone: next,
		})
	}
	for i := 0; q.InFlight() > 0; i++ {
		if _, err := q.Reap(1); err != nil {
			return n, err
		}
		stop = stop || failed != nil || (i%64 == 0 && !time.Now().Before(end))
	}
	return n, failed
}

func byRun(d *bdev.Drive, depth int, end time.Time, deadline bool) (int64, error) {
	ctx := context.Background()
	if deadline {
		c, cancel := context.WithDeadline(ctx, end.Add(time.Minute))
		defer cancel()
		ctx = c
	}
	blocks := d.Geometry().Size / block
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for i := range depth {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 2))
			o := &bdev.Op{Code: bdev.OpRead, Buf: bdev.AllocBuffer(block)}
			defer bdev.FreeBuffer(o.Buf)
			b := &bdev.Batch{Ops: []*bdev.Op{o}}
			n := int64(0)
			for n%32 != 0 || time.Now().Before(end) {
				o.Offset = rng.Int64N(blocks) * block
				if err := d.Run(ctx, b); err != nil {
					failed.Store(&err)
					return
				}
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
