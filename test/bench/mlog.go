package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// mlogSync compares durable appends with other logs'.
func (b *bench) mlogSync(ctx context.Context) error {
	appenders := []int{1, 8, 64}
	if b.quick {
		appenders = []int{1, 64}
	}
	for _, size := range []int{128, 4096} {
		for _, n := range appenders {
			if err := b.mlogCase(ctx, size, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// mlogCase is one size of records and one number of appenders.
func (b *bench) mlogCase(ctx context.Context, size, n int) error {
	plan := []string{"-time", b.time.String(), "-flight", strconv.Itoa(n), "-size", strconv.Itoa(size)}
	onExt4 := func(label, anchor string) side {
		return b.onExt4(b.anchor(label, append([]string{anchor}, append(plan, "-dir", b.ext4)...)...))
	}
	sides := []side{
		b.worker("mlog", "mlog", append(plan, "-dev", b.disk)...),
		onExt4("etcd, grouped", "etcd"), onExt4("Pebble", "pebble"), onExt4("Pebble's log writer", "pebble-log"),
	}
	if n == 1 {
		sync := []string{
			"--direct=1", "--ioengine=psync", "--rw=write", "--bs=4k", "--fdatasync=1",
			"--runtime=" + b.time.String(), "--time_based", "--size=256M",
		}
		sides = append(sides,
			b.fio("fio, device", append(sync, "--filename="+b.disk)...),
			b.onExt4(b.fio("fio, ext4", append(sync, "--overwrite=1", "--filename="+filepath.Join(b.ext4, "fio"))...)))
	}
	all, err := b.alternate(ctx, sides...)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("disk, %d B, %d appenders", size, n)
	etcd, pebble := [2]float64{}, [2]float64{}
	switch n {
	case 8:
		etcd[0], pebble[0] = 1.3, 2
	case 64:
		etcd, pebble = [2]float64{2, 3}, [2]float64{2.5, 3}
	}
	for _, anchor := range all[4:] {
		b.report(name, opsPerSecond, all[0], anchor, ratioAtLeast, 0.9, 0)
	}
	b.report(name, opsPerSecond, all[0], all[1], ratioAtLeast, etcd[0], etcd[1])
	b.report(name, opsPerSecond, all[0], all[2], ratioAtLeast, pebble[0], pebble[1])
	b.report(name, opsPerSecond, all[0], all[3], ratioAtLeast, 0, 0)
	return nil
}

// onExt4 returns a side that needs ext4, or says why there is none.
func (b *bench) onExt4(s side) side {
	if b.noExt4 != "" && s.missing == "" {
		return without(s.name, b.noExt4)
	}
	return s
}

// mlogWork appends records of o.size bytes to one log.
func mlogWork(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	info, err := p.Info(ctx)
	if err != nil {
		return nil, err
	}
	m, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: info.Space.Free / 4 * 3})
	if err != nil {
		return nil, err
	}
	if err := m.Commit(ctx); err != nil {
		return nil, err
	}
	a, err := m.OpenAppend(ctx)
	if err != nil {
		return nil, err
	}
	record := noise(int(o.size))
	if _, err := a.Append(ctx, record, true); err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before := p.DriveStats()[o.dev]
	r, err := measure.Run(o.plan, func(int) error {
		_, err := a.Append(ctx, record, true)
		if errors.Is(err, api.EFBIG) {
			return measure.ErrStop
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * o.size
	r.Extra = perOperation(before, p.DriveStats()[o.dev], r.Ops)
	return r, errors.Join(a.Close(ctx), m.Put(), p.Close())
}
