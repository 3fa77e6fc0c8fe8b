package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/test/bench/measure"
)

const (
	seqSize  = 1 << 20  // of one read or write, in bytes
	seqDepth = 8        //
	seqWhole = 64 << 20 // of one mblock
)

// seqBytes is how much client-seq writes and reads, in bytes.
func (b *bench) seqBytes() int64 {
	if b.quick {
		return 512 << 20
	}
	return 2 << 30
}

// clientSeq compares 1 MiB writes and reads from another process with fio's.
func (b *bench) clientSeq(ctx context.Context) error {
	size := strconv.FormatInt(b.seqBytes(), 10)
	for _, d := range []struct{ name, path string }{{"fast", b.fast}, {"disk", b.disk}} {
		for _, way := range []struct{ name, task, rw string }{{"write", "client-write", "write"}, {"read", "client-scan", "read"}} {
			// The first write of the blocks is nobody's. Reads find what it wrote; fio's
			// writes destroy it.
			if _, err := b.client("", "client-write", "-dev", d.path, "-size", size, "-flight", "8", "-kind", "own").run(ctx, 0); err != nil {
				return err
			}
			fio := []string{
				"--filename=" + d.path, "--direct=1", "--ioengine=io_uring", "--rw=" + way.rw, "--bs=1M",
				"--iodepth=" + strconv.Itoa(seqDepth), "--offset=8M", "--size=" + size,
			}
			args := []string{"-dev", d.path, "-size", size, "-flight", strconv.Itoa(seqDepth)}
			sides := []side{
				b.client("zero-copy", way.task, append(args, "-kind", "borrowed")...),
				b.fio("fio", append(fio, "--fixedbufs=1", "--registerfiles=1", "--nonvectored=1")...),
				b.client("own []byte", way.task, append(args, "-kind", "own")...),
			}
			if d.name == "disk" && b.hugePages {
				sides = append(sides, b.fio("fio, huge pages", append(fio, "--mem=mmaphuge", "--hugepage-size=2M")...))
			}
			all, err := b.alternate(ctx, sides...)
			if err != nil {
				return err
			}
			b.reportSeq(d.name+", "+way.name, d.name == "fast", all)
		}
	}
	return nil
}

// reportSeq reports one device and direction.
func (b *bench) reportSeq(name string, fast bool, all []*series) {
	aim := 0.0
	if fast {
		aim = 1
	}
	for i, s := range []struct {
		ours *series
		must float64
	}{{all[0], 0.95}, {all[2], 0.80}} {
		label := []string{", zero-copy", ", own []byte"}[i]
		b.report(name+label, mbPerSecond, s.ours, all[1], ratioAtLeast, s.must, aim).Note = arenaNote(s.ours)
		if len(all) > 3 {
			b.report(name+label, mbPerSecond, s.ours, all[3], ratioAtLeast, 0, 0.95)
		}
	}
}

// arenaNote says what memory the daemon shared in the last run.
func arenaNote(s *series) string {
	if len(s.Runs) == 0 {
		return ""
	}
	x := s.Runs[len(s.Runs)-1].Extra
	return fmt.Sprintf("%.0f of %.0f shared MiB on huge pages", x["hugeArenas"]/(1<<20), x["arenas"]/(1<<20))
}

// clientWriteWork makes a pool and writes o.size bytes into mblocks of it, in
// pieces of 1 MiB. They are allocated before and committed after it counts.
func clientWriteWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]api.Mblock, o.size/seqWhole)
	for i := range list {
		if list[i], err = c.pool.AllocMblock(ctx, api.AllocOptions{Capacity: seqWhole}); err != nil {
			return nil, err
		}
	}
	run := clientWriteOwn
	if o.kind == "borrowed" {
		run = clientWriteBorrowed
	}
	r, err := run(ctx, c, list)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * seqSize
	for _, m := range list {
		if err := m.Commit(ctx); err != nil {
			return nil, err
		}
		if err := m.Put(); err != nil {
			return nil, err
		}
	}
	return r, c.finish(r)
}

// clientWriteOwn writes the caller's memory with the blocking call. The pieces
// of an mblock are written one after another, so each goroutine has its own.
func clientWriteOwn(ctx context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	o := c.o
	o.plan.Ops = 0
	type writer struct {
		buf []byte
		m   api.Mblock
		at  int
	}
	writers := make([]writer, o.plan.Workers)
	for i := range writers {
		writers[i].buf = noise(seqSize)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	var next atomic.Int64
	return measure.Run(o.plan, func(n int) error {
		w := &writers[n]
		if w.m == nil || w.at == seqWhole {
			i := next.Add(1) - 1
			if i >= int64(len(list)) {
				w.m = nil
				return measure.ErrEnd
			}
			w.m, w.at = list[i], 0
		}
		k, err := w.m.Write(ctx, w.buf)
		w.at += k
		return err
	})
}

// clientScanWork reads all mblocks of a pool, in pieces of 1 MiB, in their order.
func clientScanWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.activateThrough(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.mblocks(ctx)
	if err != nil {
		return nil, err
	}
	run := clientScanOwn
	if o.kind == "borrowed" {
		run = clientScanBorrowed
	}
	r, err := run(ctx, c, list)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * seqSize
	if r.Bytes != o.size {
		return nil, fmt.Errorf("%d bytes were read, not %d", r.Bytes, o.size)
	}
	for _, m := range list {
		if err := m.Put(); err != nil {
			return nil, err
		}
	}
	return r, c.finish(r)
}

// clientScanOwn reads into the caller's memory with the blocking call.
func clientScanOwn(_ context.Context, c *connection, list []api.Mblock) (*measure.Result, error) {
	o := c.o
	o.plan.Ops = int64(len(list)) * (seqWhole / seqSize)
	bufs := make([][]byte, o.plan.Workers)
	for i := range bufs {
		bufs[i] = noise(seqSize)
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	var next atomic.Int64
	return measure.Run(o.plan, func(w int) error {
		at := (next.Add(1) - 1) * seqSize
		n, err := list[at/seqWhole].ReadAt(bufs[w], at%seqWhole)
		if err == io.EOF && n == seqSize { //nolint:errorlint // io.ReaderAt gives it as it is
			err = nil
		}
		return err
	})
}
