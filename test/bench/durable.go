package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// mblockDurable compares the writing of large mblocks, each durable, with fio's
// sequential writes and a sync for as many bytes.
func (b *bench) mblockDurable(ctx context.Context) error {
	count := int64(96)
	flights := []int{1, 4, 8}
	if b.quick {
		count, flights = 24, []int{1, 8}
	}
	for _, d := range []struct{ name, path string }{{"fast", b.fast}, {"disk", b.disk}} {
		// Both sides write the same blocks: those behind the pool's metadata. The
		// first write of them is nobody's.
		if _, err := b.work(ctx, "durable", "-dev", d.path, "-ops", strconv.FormatInt(count, 10), "-flight", "8"); err != nil {
			return err
		}
		fio := []string{
			"--filename=" + d.path, "--direct=1", "--ioengine=io_uring", "--rw=write", "--bs=1M", "--iodepth=8",
			"--fdatasync=32", "--offset=8M", fmt.Sprintf("--size=%d", count*mblockSize),
		}
		sides := []side{b.fio("fio", append(fio, "--fixedbufs=1", "--registerfiles=1", "--nonvectored=1")...)}
		if d.name == "disk" && b.hugePages {
			sides = append(sides, b.fio("fio, huge pages", append(fio, "--mem=mmaphuge", "--hugepage-size=2M")...))
		}
		anchors := len(sides)
		for _, n := range flights {
			args := []string{"-dev", d.path, "-ops", strconv.FormatInt(count, 10), "-flight", strconv.Itoa(n)}
			sides = append(sides, b.client("zero-copy", "client-durable", append(args, "-kind", "borrowed")...),
				b.client("own []byte", "client-durable", append(args, "-kind", "own")...), b.worker("engine", "durable", args...))
		}
		all, err := b.alternate(ctx, sides...)
		if err != nil {
			return err
		}
		for i, n := range flights {
			b.reportDurable(fmt.Sprintf("%s, %d in flight", d.name, n), all[:anchors], all[anchors+3*i:][:3])
		}
	}
	return nil
}

// reportDurable reports one case: ours with borrowed memory, with the caller's own,
// and in process.
func (b *bench) reportDurable(name string, anchors, ours []*series) {
	for i, s := range []struct {
		label string
		must  float64
	}{{", zero-copy", 0.95}, {", own []byte", 0.95}, {"", 0}} {
		l := b.report(name+s.label, mbPerSecond, ours[i], anchors[0], ratioAtLeast, s.must, 1)
		if i < 2 {
			l.Note = arenaNote(ours[i])
		}
		if len(anchors) > 1 {
			b.report(name+s.label, mbPerSecond, ours[i], anchors[1], ratioAtLeast, 0, 0.95)
		}
	}
}

// clientDurable is durable through the daemon.
func clientDurable(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	run := clientDurableOwn
	if o.kind == "borrowed" {
		run = clientDurableBorrowed
	}
	r, err := run(ctx, c)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * mblockSize
	return r, c.finish(r)
}

// clientDurableOwn is clientDurable with the blocking calls and the caller's
// memory.
func clientDurableOwn(ctx context.Context, c *connection) (*measure.Result, error) {
	o := c.o
	bufs := make([][]byte, o.plan.Workers)
	for i := range bufs {
		bufs[i] = noise(mblockSize)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	return measure.Run(o.plan, func(w int) error { return storeMblock(ctx, c.pool, bufs[w]) })
}

// durable makes a pool and stores o.plan.Ops mblocks of 32 MiB in it.
func durable(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	bufs := make([][]byte, o.plan.Workers)
	for i := range bufs {
		bufs[i] = noise(mblockSize)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	r, err := measure.Run(o.plan, func(w int) error { return storeMblock(ctx, p, bufs[w]) })
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * mblockSize
	for _, b := range bufs {
		bdev.FreeBuffer(b)
	}
	return r, p.Close()
}
