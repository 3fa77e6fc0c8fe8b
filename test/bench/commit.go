package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// smallSize is the size of a small object, in bytes.
const smallSize = 4096

// commitRate compares the committing of small mblocks with durable small files.
func (b *bench) commitRate(ctx context.Context) error {
	for _, c := range []struct {
		flight    int
		ops       int64
		must, aim float64
	}{{1, 1500, 1, 0}, {8, 6000, 0, 0}, {64, 20000, 3, 8}} {
		if b.quick {
			c.ops /= 5
		}
		plan := []string{"-ops", strconv.FormatInt(c.ops, 10), "-flight", strconv.Itoa(c.flight)}
		all, err := b.alternate(ctx,
			b.worker("engine", "commit", append(plan, "-dev", b.disk)...),
			b.client("client", "client-commit", append(plan, "-dev", b.disk)...),
			b.client("client, one request", "client-commit", append(plan, "-dev", b.disk, "-kind", "put")...),
			b.files("ext4", b.noExt4, append(plan, "-dir", b.ext4)...),
			b.files("XFS", b.noXFS, append(plan, "-dir", b.xfs)...),
		)
		if err != nil {
			return err
		}
		for i, ours := range all[:3] {
			how := []string{"", "", ", one request"}[i]
			for _, anchor := range all[3:] {
				b.report(fmt.Sprintf("disk, %d in flight%s", c.flight, how), opsPerSecond, ours, anchor, ratioAtLeast, c.must, c.aim)
			}
		}
	}
	return nil
}

// files returns a side that makes durable small files on a file system.
func (b *bench) files(label, missing string, args ...string) side {
	if missing != "" {
		return without(label, missing)
	}
	return b.worker(label, "files", args...)
}

// clientCommit is commit through the daemon; with -kind put each mblock is one
// request, and one that gives its handle up; with -kind owned it is for an owner below
// another one, with -kind limited both have limits.
func clientCommit(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	store := storeMblock
	switch o.kind {
	case "put":
		store = putMblock
	case "owned", "limited":
		owner, err := tenant(ctx, c.pool, o.kind == "limited")
		if err != nil {
			return nil, err
		}
		store = func(ctx context.Context, p api.Pool, data []byte) error { return storeFor(ctx, p, owner, data) }
	}
	bufs := make([][]byte, o.plan.Workers)
	for i := range bufs {
		bufs[i] = noise(smallSize)
		if err := store(ctx, c.pool, bufs[i]); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	r, err := measure.Run(o.plan, func(w int) error { return store(ctx, c.pool, bufs[w]) })
	if err != nil {
		return nil, err
	}
	after, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	r.Extra = perOperationThrough(before, after, r.Ops)
	return r, c.finish(r)
}

// putMblock stores an mblock by one request.
func putMblock(ctx context.Context, p api.Pool, data []byte) error {
	m, err := p.PutMblock(ctx, api.AllocOptions{}, data)
	if err != nil {
		return err
	}
	return m.Put()
}

// perOperationThrough is perOperation of what the daemon says.
func perOperationThrough(before, after client.DriveCounters, ops int64) map[string]float64 {
	n := float64(max(ops, 1))
	return map[string]float64{
		"flushes":    float64(after.Flushes-before.Flushes) / n,
		"writes":     float64(after.Writes-before.Writes) / n,
		"writeBytes": float64(after.WriteBytes-before.WriteBytes) / n,
	}
}

// commit makes a pool and stores small mblocks in it.
func commit(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	bufs := make([][]byte, o.plan.Workers)
	for i := range bufs {
		bufs[i] = noise(smallSize)
		if err := storeMblock(ctx, p, bufs[i]); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before := p.DriveStats()[o.dev]
	r, err := measure.Run(o.plan, func(w int) error { return storeMblock(ctx, p, bufs[w]) })
	if err != nil {
		return nil, err
	}
	r.Extra = perOperation(before, p.DriveStats()[o.dev], r.Ops)
	for _, b := range bufs {
		bdev.FreeBuffer(b)
	}
	return r, p.Close()
}

// files makes small durable files, each worker in a folder of its own, so that
// they do not wait for each other's folder.
func files(_ context.Context, o *options) (*measure.Result, error) {
	top, err := os.MkdirTemp(o.dir, "files")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	data := noise(smallSize)
	folders := make([]*folder, o.plan.Workers)
	for i := range folders {
		if folders[i], err = newFolder(filepath.Join(top, strconv.Itoa(i))); err != nil {
			return nil, err
		}
		if err := folders[i].store(data); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	r, err := measure.Run(o.plan, func(w int) error { return folders[w].store(data) })
	if err != nil {
		return nil, err
	}
	for _, f := range folders {
		if err := f.file.Close(); err != nil {
			return nil, err
		}
	}
	return r, os.RemoveAll(top)
}

// folder is where a worker makes its files.
type folder struct {
	file *os.File
	n    int
}

func newFolder(path string) (*folder, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &folder{file: f}, nil
}

// store makes a durable file.
func (d *folder) store(data []byte) error {
	d.n++
	f, err := os.OpenFile(filepath.Join(d.file.Name(), strconv.Itoa(d.n)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), d.file.Sync())
}

// perOperation returns how many flushes and writes the device got for each
// operation.
func perOperation(before, after bdev.Stats, ops int64) map[string]float64 {
	n := float64(max(ops, 1))
	return map[string]float64{
		"flushes":    float64(after.Flushes-before.Flushes) / n,
		"writes":     float64(after.Writes-before.Writes) / n,
		"writeBytes": float64(after.WriteBytes-before.WriteBytes) / n,
	}
}
