package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"strconv"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mblock"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/test/bench/measure"
)

const (
	mblockSize = 32 << 20
	readSize   = 4096
	readDepth  = 32
	readGather = readDepth / 8
)

// engineRead compares 4 KiB random reads of committed mblocks with fio's.
func (b *bench) engineRead(ctx context.Context) error {
	size := int64(1 << 30)
	if b.quick {
		size = 256 << 20
	}
	for _, d := range []struct {
		name, path string
		queue      float64 // aims
		blocking   float64
	}{{"fast", b.fast, 1, 0.9}, {"disk", b.disk, 1, 0.9}} {
		filled, err := b.work(ctx, "read-fill", "-dev", d.path, "-size", strconv.FormatInt(size, 10))
		if err != nil {
			return err
		}
		args := []string{"-dev", d.path, "-time", b.time.String(), "-flight", strconv.Itoa(readDepth)}
		all, err := b.alternate(ctx,
			b.worker("queue", "read", args...),
			b.fio("fio io_uring", "--filename="+d.path, "--direct=1", "--ioengine=io_uring", "--fixedbufs=1",
				"--registerfiles=1", "--nonvectored=1", "--rw=randread", "--bs=4k", "--iodepth=32",
				"--runtime="+b.time.String(), "--time_based", "--norandommap", "--randrepeat=0",
				fmt.Sprintf("--offset=%.0f", filled.Extra["offset"]), fmt.Sprintf("--size=%d", size)),
			b.worker("blocking", "read", append(args, "-blocking")...),
		)
		if err != nil {
			return err
		}
		queue, anchor, blocking := all[0], all[1], all[2]
		b.report(d.name+", queue: CPU", cpuPerOp, queue, anchor, aboveAtMost, 0.7, 0)
		b.report(d.name+", queue: IOPS", opsPerSecond, queue, anchor, ratioAtLeast, 0, d.queue)
		b.report(d.name+", 32 goroutines: CPU", cpuPerOp, blocking, anchor, aboveAtMost, 3, 0)
		b.report(d.name+", 32 goroutines: IOPS", opsPerSecond, blocking, anchor, ratioAtLeast, 0, d.blocking)
	}
	return nil
}

// readFill makes a pool of committed mblocks of o.size bytes in all. Extra
// "offset" is where the first one lies.
func readFill(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	buf := noise(mblockSize)
	defer bdev.FreeBuffer(buf)
	clock := measure.Start()
	for range o.size / mblockSize {
		if err := storeMblock(ctx, p, buf); err != nil {
			return nil, err
		}
	}
	r := clock.Stop()
	list, err := openMblocks(ctx, p)
	if err != nil {
		return nil, err
	}
	first := int64(1 << 62)
	for _, m := range list {
		rd, err := m.Reader()
		if err != nil {
			return nil, err
		}
		var op mblock.ReadOp
		if err := rd.BeginRead(&op, buf[:readSize], 0); err != nil {
			return nil, err
		}
		first = min(first, op.Ops()[0].Offset)
		op.Cancel()
	}
	r.Extra = map[string]float64{"offset": float64(first)}
	return r, closePool(p, list)
}

// noise returns so many aligned bytes that do not compress.
func noise(n int) []byte {
	buf := bdev.AllocBuffer(n)
	rng := rand.NewChaCha8([32]byte{1})
	for i := 0; i < n; i += 4096 {
		_, _ = rng.Read(buf[i:min(i+4096, n)]) //nolint:errcheck // it never fails
	}
	return buf
}

// storeMblock stores data in an mblock of its size.
func storeMblock(ctx context.Context, p api.Pool, data []byte) error {
	return storeFor(ctx, p, 0, data)
}

// storeFor is storeMblock for an owner.
func storeFor(ctx context.Context, p api.Pool, owner uint32, data []byte) error {
	m, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data)), Owner: owner})
	if err != nil {
		return err
	}
	if _, err := m.Write(ctx, data); err != nil {
		return err
	}
	if err := m.Commit(ctx); err != nil {
		return err
	}
	return m.Put()
}

// committed iterates over the ids of the committed mblocks.
func committed(ctx context.Context, p api.Pool) iter.Seq2[layout.ObjectID, error] {
	return func(yield func(layout.ObjectID, error) bool) {
		f := api.Filter{Kind: layout.KindMblock, State: api.StateCommitted}
		for i, err := range p.Objects(ctx, f) {
			if !yield(i.ID, err) {
				return
			}
		}
	}
}

// openMblocks opens all committed mblocks.
func openMblocks(ctx context.Context, p *mpool.Pool) ([]*mpool.Mblock, error) {
	var list []*mpool.Mblock
	for id, err := range committed(ctx, p) {
		if err != nil {
			return nil, err
		}
		m, err := p.Mblock(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, m.(*mpool.Mblock))
	}
	return list, nil
}

func closePool(p *mpool.Pool, list []*mpool.Mblock) error {
	for _, m := range list {
		if err := m.Put(); err != nil {
			return err
		}
	}
	return p.Close()
}

// read reads at random.
func read(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.activate(ctx)
	if err != nil {
		return nil, err
	}
	list, err := openMblocks(ctx, p)
	if err != nil {
		return nil, err
	}
	// Checksum pages are in memory before it counts.
	buf := bdev.AllocBuffer(readSize)
	for _, m := range list {
		for off := int64(0); off < mblockSize; off += mblock.PageSums * readSize {
			if _, err := m.ReadAt(buf, off); err != nil {
				return nil, err
			}
		}
	}
	bdev.FreeBuffer(buf)
	run := readQueue
	if o.blocking {
		run = readBlocking
	}
	r, err := run(o, list)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * readSize
	return r, closePool(p, list)
}

// readBlocking reads with the blocking call from many goroutines.
func readBlocking(o *options, list []*mpool.Mblock) (*measure.Result, error) {
	rngs := make([]*rand.Rand, o.plan.Workers)
	bufs := make([][]byte, o.plan.Workers)
	for i := range rngs {
		rngs[i] = rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
		bufs[i] = bdev.AllocBuffer(readSize)
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

// queueReader drives reads over one queue from one goroutine.
type queueReader struct {
	queue   bdev.Queue
	readers []*mblock.Reader
	rng     *rand.Rand
	ended   []*queuedRead
	fixed   bdev.BufferID
}

// queuedRead is one of the reads in flight.
type queuedRead struct {
	op      mblock.ReadOp
	buf     []byte
	start   time.Time
	pending int
}

// readQueue reads over one queue.
func readQueue(o *options, list []*mpool.Mblock) (*measure.Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q, err := bdev.NewQueue(nil, bdev.QueueOptions{Depth: 2 * o.plan.Workers})
	if err != nil {
		return nil, err
	}
	r := &queueReader{queue: q, rng: rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))}
	for _, m := range list {
		rd, err := m.Reader()
		if err != nil {
			return nil, err
		}
		r.readers = append(r.readers, rd)
	}
	memory := bdev.AllocBuffer(o.plan.Workers * readSize)
	if r.fixed, err = bdev.RegisterBuffer(q, memory); err != nil {
		return nil, err
	}
	if err := r.registerDrive(memory); err != nil {
		return nil, err
	}
	reads := make([]queuedRead, o.plan.Workers)
	if err := o.measured(); err != nil {
		return nil, err
	}
	clock := measure.Start()
	var l measure.Latencies
	err = r.run(o.plan.Time, reads, memory, &l)
	res := clock.Stop()
	res.Latencies(l)
	return res, errors.Join(err, q.Close())
}

// registerDrive registers the drive that the mblocks lie on, if the queue can.
func (r *queueReader) registerDrive(memory []byte) error {
	var op mblock.ReadOp
	if err := r.readers[0].BeginRead(&op, memory[:readSize], 0); err != nil {
		return err
	}
	defer op.Cancel()
	if q, ok := r.queue.(bdev.Registrar); ok {
		return q.RegisterDrive(op.Ops()[0].Drive)
	}
	return nil
}

// run keeps all reads in flight until the time is over, then waits for them.
func (r *queueReader) run(d time.Duration, reads []queuedRead, memory []byte, l *measure.Latencies) error {
	now := time.Now()
	end := now.Add(d)
	for i := range reads {
		reads[i].buf = memory[i*readSize:][:readSize:readSize]
		if err := r.begin(&reads[i], now); err != nil {
			return err
		}
	}
	for r.queue.InFlight() > 0 {
		// An eighth of the reads is waited for: fewer, larger turns.
		if _, err := r.queue.Reap(min(readGather, r.queue.InFlight())); err != nil {
			return err
		}
		now = time.Now()
		more := now.Before(end)
		for i, rd := range r.ended {
			r.ended[i] = nil
			if _, err := rd.op.End(); err != nil {
				return err
			}
			l.Add(now.Sub(rd.start))
			if !more {
				continue
			}
			if err := r.begin(rd, now); err != nil {
				return err
			}
		}
		r.ended = r.ended[:0]
	}
	return nil
}

// begin puts a read of a random block on the queue.
func (r *queueReader) begin(rd *queuedRead, now time.Time) error {
	rd.start = now
	reader := r.readers[r.rng.IntN(len(r.readers))]
	if err := reader.BeginRead(&rd.op, rd.buf, r.rng.Int64N(mblockSize/readSize)*readSize); err != nil {
		return err
	}
	ops := rd.op.Ops()
	rd.pending = len(ops)
	if rd.op.Direct() {
		ops[0].Fixed = r.fixed
	}
	for _, op := range ops {
		if op.OnDone == nil {
			op.OnDone = func(*bdev.Op) {
				if rd.pending--; rd.pending == 0 {
					r.ended = append(r.ended, rd)
				}
			}
		}
		if !r.queue.Put(op) {
			return errors.New("the queue is full")
		}
	}
	return nil
}
