package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// fioReads returns fio's random reads of 4 KiB at a depth, of size bytes from an
// offset.
func (b *bench) fioReads(dev string, depth int, offset float64, size int64) side {
	return b.fio("fio io_uring", "--filename="+dev, "--direct=1", "--ioengine=io_uring", "--fixedbufs=1",
		"--registerfiles=1", "--nonvectored=1", "--rw=randread", "--bs=4k", "--iodepth="+strconv.Itoa(depth),
		"--runtime="+b.time.String(), "--time_based", "--norandommap", "--randrepeat=0",
		fmt.Sprintf("--offset=%.0f", offset), fmt.Sprintf("--size=%d", size))
}

// readBytes is how much the rows that read at random have to read from, in
// bytes.
func (b *bench) readBytes() int64 {
	if b.quick {
		return 256 << 20
	}
	return 1 << 30
}

// clientRead compares 4 KiB random reads from another process with fio's.
func (b *bench) clientRead(ctx context.Context) error {
	for _, d := range []struct {
		name, path                       string
		queueMust, queueAim, waitingMust float64
	}{{"fast", b.fast, 0, 0.76, 0}, {"disk", b.disk, 0.85, 0.95, 0.75}} {
		filled, err := b.work(ctx, "read-fill", "-dev", d.path, "-size", strconv.FormatInt(b.readBytes(), 10))
		if err != nil {
			return err
		}
		args := []string{"-dev", d.path, "-time", b.time.String(), "-flight", strconv.Itoa(readDepth)}
		all, err := b.alternate(ctx,
			b.client("queue", "client-read", args...),
			b.fioReads(d.path, readDepth, filled.Extra["offset"], b.readBytes()),
			b.client("blocking", "client-read", append(args, "-blocking")...),
		)
		if err != nil {
			return err
		}
		queue, anchor, blocking := all[0], all[1], all[2]
		b.report(d.name+", queue: CPU", cpuPerOp, queue, anchor, aboveAtMost, 3.5, 0)
		b.report(d.name+", queue: IOPS", opsPerSecond, queue, anchor, ratioAtLeast, d.queueMust, d.queueAim)
		b.report(d.name+", 32 goroutines: CPU", cpuPerOp, blocking, anchor, aboveAtMost, 6, 0)
		b.report(d.name+", 32 goroutines: IOPS", opsPerSecond, blocking, anchor, ratioAtLeast, d.waitingMust, 0)
	}
	return nil
}

// clientReadOne compares single 4 KiB reads from another process with fio's.
func (b *bench) clientReadOne(ctx context.Context) error {
	filled, err := b.work(ctx, "read-fill", "-dev", b.disk, "-size", strconv.FormatInt(b.readBytes(), 10))
	if err != nil {
		return err
	}
	args := []string{"-dev", b.disk, "-time", b.time.String(), "-flight", "1"}
	all, err := b.alternate(ctx,
		b.client("blocking", "client-read", append(args, "-blocking")...),
		b.fioReads(b.disk, 1, filled.Extra["offset"], b.readBytes()),
		b.client("queue", "client-read", args...),
	)
	if err != nil {
		return err
	}
	b.report("disk, blocking: p50", median, all[0], all[1], aboveAtMost, 20, 10)
	b.report("disk, queue: p50", median, all[2], all[1], aboveAtMost, 20, 10)
	return nil
}

// median is the latency that half of the operations keep.
var median = metric{"µs", func(r *measure.Result) float64 { return r.P50US }}

// clientReadWork reads at random through the daemon.
func clientReadWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.activateThrough(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.mblocks(ctx)
	if err != nil {
		return nil, err
	}
	// Checksum pages are in memory before it counts.
	buf := noise(readSize)
	for _, m := range list {
		for off := int64(0); off < mblockSize; off += mblock.PageSums * readSize {
			if _, err := m.ReadAt(buf, off); err != nil {
				return nil, err
			}
		}
	}
	run := clientReadQueue
	if o.blocking {
		run = clientReadBlocking
	}
	r, err := run(c, list)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * readSize
	for _, m := range list {
		if err := m.Put(); err != nil {
			return nil, err
		}
	}
	return r, c.finish(r)
}

// mblocks opens all committed mblocks.
func (c *connection) mblocks(ctx context.Context) ([]api.Mblock, error) {
	var list []api.Mblock
	for id, err := range committed(ctx, c.pool) {
		if err != nil {
			return nil, err
		}
		m, err := c.pool.Mblock(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// clientReadBlocking reads with the blocking call from many goroutines.
func clientReadBlocking(c *connection, list []api.Mblock) (*measure.Result, error) {
	o := c.o
	rngs := make([]*rand.Rand, o.plan.Workers)
	bufs := make([][]byte, o.plan.Workers)
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
		bufs[i] = noise(readSize)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	return measure.Run(o.plan, func(w int) error {
		m := list[rngs[w].IntN(len(list))]
		_, err := m.ReadAt(bufs[w], rngs[w].Int64N(mblockSize/readSize)*readSize)
		return err
	})
}
