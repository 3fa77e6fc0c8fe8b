package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// largeCount is how many objects --large adds to the row.
const largeCount = 10_000_000

// activate compares an activation after a kill with reading the metadata.
func (b *bench) activate(ctx context.Context) error {
	counts := []int64{100_000, 1_000_000}
	if b.quick {
		counts = []int64{20_000}
	}
	if b.large {
		counts = append(counts, largeCount)
	}
	for _, n := range counts {
		// So many blocks are more than most disks have: these objects are empty.
		size, kind := smallSize, "objects"
		if n == largeCount {
			size, kind = 0, "empty objects"
		}
		if _, err := b.work(ctx, "activate-fill", "-dev", b.sparse, "-objects", strconv.FormatInt(n, 10), "-flight", "8",
			"-size", strconv.Itoa(size)); err != nil {
			return err
		}
		place, err := b.work(ctx, "activate-place", "-dev", b.sparse)
		if err != nil {
			return err
		}
		all, err := b.alternate(ctx,
			cold(b.worker("activation", "activate", "-dev", b.sparse, "-objects", strconv.FormatInt(n, 10))),
			cold(b.fio("fio read", "--filename="+b.sparse, "--direct=1", "--ioengine=io_uring", "--rw=read", "--bs=1M",
				"--iodepth=8", fmt.Sprintf("--offset=%.0f", place.Extra["offset"]),
				fmt.Sprintf("--size=%.0f", place.Extra["size"]))),
		)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("disk, %d %s", n, kind)
		perMillion := metric{"s per 1 M", func(r *measure.Result) float64 { return r.Seconds / float64(n) * 1e6 }}
		must := 1.0
		if n < 1_000_000 {
			must = 0 // the superblocks' writes, whatever the count, weigh too much
		}
		b.report(name, perMillion, all[0], nil, valueAtMost, must, 0)
		b.report(name, wallTime, all[0], all[1], ratioAtMost, 0, 1.5)
	}
	return nil
}

// cold drops the page cache before a side's runs.
func cold(s side) side {
	run := s.run
	s.run = func(ctx context.Context, turn int) (*measure.Result, error) {
		syscall.Sync()
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200); err != nil {
			return nil, fmt.Errorf("drop caches: %w", err)
		}
		return run(ctx, turn)
	}
	return s
}

// activateFill makes a pool of o.objects mblocks of o.size bytes, and dies.
func activateFill(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{ZoneSize: 64 << 10})
	if err != nil {
		return nil, err
	}
	const group = 1000
	o.plan.Ops = o.objects / group
	var data []byte
	if o.size > 0 {
		data = noise(int(o.size))
	}
	r, err := measure.Run(o.plan, func(int) error { return storeMany(ctx, p, group, data) })
	if err != nil {
		return nil, err
	}
	return r, die(r)
}

// storeMany stores n mblocks in one transaction.
func storeMany(ctx context.Context, p api.Pool, n int, data []byte) error {
	list := make([]api.Object, n)
	for i := range list {
		m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
		if err != nil {
			return err
		}
		if len(data) > 0 {
			if _, err := m.Write(ctx, data); err != nil {
				return err
			}
		}
		list[i] = m
	}
	if err := p.CommitMany(ctx, list, nil); err != nil {
		return err
	}
	for _, m := range list {
		if err := m.Put(); err != nil {
			return err
		}
	}
	return nil
}

// die prints the result and ends the process as a kill -9 does.
func die(r *measure.Result) error {
	if err := r.Print(); err != nil {
		return err
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// activateWork activates the pool and dies.
func activateWork(ctx context.Context, o *options) (*measure.Result, error) {
	if err := o.measured(); err != nil {
		return nil, err
	}
	clock := measure.Start()
	p, err := o.activateOnly(ctx)
	if err != nil {
		return nil, err
	}
	r := clock.Stop()
	if err := o.stop(); err != nil {
		return nil, err
	}
	info, err := p.Info(ctx)
	if err != nil {
		return nil, err
	}
	if info.Mblocks != o.objects {
		return nil, fmt.Errorf("%d objects after activation, not %d", info.Mblocks, o.objects)
	}
	r.Zone, r.Ops, r.Bytes = info.ZoneSize, o.objects, int64(p.DriveStats()[o.dev].ReadBytes)
	r.Extra = map[string]float64{"resident": resident()}
	return r, die(r)
}

// activatePlace finds out where the pool's active metadata log lies on the
// device, and how long it is, both in bytes.
func activatePlace(ctx context.Context, o *options) (*measure.Result, error) {
	d, err := bdev.Open(ctx, nil, o.dev, bdev.OpenOptions{ReadOnly: true, Shared: true})
	if err != nil {
		return nil, err
	}
	b := bdev.AllocBuffer(omf.SuperblockSize)
	batch := bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Buf: b}}}
	if err := d.Run(ctx, &batch); err != nil {
		return nil, err
	}
	sb, err := omf.Decode(b)
	if err != nil {
		return nil, err
	}
	var found mlog.Config
	for _, l := range sb.Logs {
		c := mlog.Config{Drive: d, Birth: l.Birth, Epoch: sb.Epoch, Extent: layout.Extent{Start: l.Start, Blocks: l.Blocks}}
		if g, err := mlog.Discover(ctx, c); err == nil && g > found.Generation {
			found, found.Generation = c, g
		}
	}
	log, err := mlog.Open(ctx, found)
	if err != nil {
		return nil, err
	}
	_, size := log.Len()
	pages := (size + mlog.PayloadSize - 1) / mlog.PayloadSize
	r := &measure.Result{Extra: map[string]float64{
		"offset": float64(found.Extent.Offset() + mlog.SlotPages*mlog.PageSize),
		"size":   float64(pages * mlog.PageSize),
	}}
	return r, errors.Join(log.Abandon(ctx), d.Close())
}
