package bdevtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// readBack: a drive is an array of sectors.
func readBack(e *env) {
	const span = 1 << 20
	model := make([]byte, span)
	p := buffer(span)
	defer bdev.FreeBuffer(p)
	clear(p)
	if !e.must("write", e.run(&bdev.Op{Code: bdev.OpWrite, Buf: p})) {
		return
	}
	for i := range 200 {
		at := e.rng.Int64N(span/e.sector) * e.sector
		n := min((1+e.rng.Int64N(32))*e.sector, span-at)
		o := &bdev.Op{Code: bdev.OpRead, Offset: at, Buf: p[:n]}
		if i%2 == 0 {
			o.Code = bdev.OpWrite
			stamp(o.Buf, at, uint64(i))
			copy(model[at:], o.Buf)
		}
		if !e.must(o.Code.String(), e.run(o)) {
			return
		}
		if o.Code == bdev.OpRead && !bytes.Equal(o.Buf, model[at:at+n]) {
			e.errorf("step %d: read of %d at %d is not what was written", i, n, at)
			return
		}
	}
}

// concurrent: many tasks, each with its own part of the drive, in batches.
func concurrent(e *env) {
	const tasks, perBatch = 24, 4
	part := e.geo.Size / tasks / e.sector * e.sector
	g := newGroup(e.s)
	for task := range int64(tasks) {
		g.run("worker", func() {
			size := min(4*e.sector, part/perBatch/e.sector*e.sector)
			b := &bdev.Batch{}
			for i := range int64(perBatch) {
				p := buffer(size)
				defer bdev.FreeBuffer(p)
				b.Ops = append(b.Ops, &bdev.Op{Offset: task*part + i*size, Buf: p})
			}
			for round := range uint64(20) {
				for _, o := range b.Ops {
					o.Code = bdev.OpWrite
					stamp(o.Buf, o.Offset, round)
				}
				if !e.must("write", e.d.Run(context.Background(), b)) {
					return
				}
				for _, o := range b.Ops {
					o.Code = bdev.OpRead
					clear(o.Buf)
				}
				if !e.must("read", e.d.Run(context.Background(), b)) {
					return
				}
				for _, o := range b.Ops {
					if !stamped(o.Buf, o.Offset, round) {
						e.errorf("task %d, round %d: wrong content at %d", task, round, o.Offset)
						return
					}
				}
			}
		})
	}
	g.wait()
}

// vectors: pieces are one contiguous transfer, however many there are.
func vectors(e *env) {
	for _, pieces := range []int64{1, 2, 7, 1024, 1025, 1500} {
		if pieces*e.sector > e.geo.Size {
			continue
		}
		p, q := buffer(2*pieces*e.sector), buffer(pieces*e.sector)
		w := &bdev.Op{Code: bdev.OpWrite, Offset: 0}
		for i := range pieces { // with gaps between them
			v := p[2*i*e.sector : (2*i+1)*e.sector]
			stamp(v, i*e.sector, uint64(pieces))
			w.Vec = append(w.Vec, v)
		}
		r := &bdev.Op{Code: bdev.OpRead, Offset: 0, Buf: q}
		if e.must("write", e.run(w)) && e.must("read", e.run(r)) && !stamped(q, 0, uint64(pieces)) {
			e.errorf("%d pieces: content is not what was written", pieces)
		}
		for _, v := range w.Vec {
			clear(v)
		}
		w.Code = bdev.OpRead
		if e.must("read", e.run(w)) {
			for i, v := range w.Vec {
				if !stamped(v, int64(i)*e.sector, uint64(pieces)) {
					e.errorf("%d pieces: piece %d was read wrong", pieces, i)
					break
				}
			}
		}
		bdev.FreeBuffer(p)
		bdev.FreeBuffer(q)
	}
}

// refusals: bad operations are refused with their reason, good ones of the
// same batch done.
func refusals(e *env) {
	p := buffer(4 * e.sector)
	defer bdev.FreeBuffer(p)
	sector := p[:e.sector]
	bad := map[string]*bdev.Op{
		"offset":   {Code: bdev.OpRead, Offset: 1, Buf: sector},
		"length":   {Code: bdev.OpRead, Buf: p[:e.sector-1]},
		"address":  {Code: bdev.OpRead, Buf: p[8 : 8+e.sector]},
		"piece":    {Code: bdev.OpRead, Vec: [][]byte{p[:e.sector/2], p[e.sector : e.sector*3/2]}},
		"empty":    {Code: bdev.OpRead},
		"negative": {Code: bdev.OpRead, Offset: -e.sector, Buf: sector},
		"end":      {Code: bdev.OpRead, Offset: e.geo.Size, Buf: sector},
		"overlap":  {Code: bdev.OpRead, Offset: e.geo.Size - e.sector, Buf: p[:2*e.sector]},
		"huge":     {Code: bdev.OpRead, Offset: math.MaxInt64 &^ (e.sector - 1), Buf: p[:2*e.sector]},
		"code":     {Buf: sector},
	}
	for name, o := range bad {
		good := &bdev.Op{Code: bdev.OpRead, Offset: e.geo.Size - e.sector, Buf: p[2*e.sector : 3*e.sector]}
		err := e.run(good, o, &bdev.Op{Code: bdev.OpFlush})
		var ioe *bdev.IOError
		if !errors.Is(err, syscall.EINVAL) || !errors.As(err, &ioe) || ioe.Device != e.geo.Path {
			e.errorf("%s: error %v", name, err)
		}
		if good.Err != nil || !errors.Is(o.Err, syscall.EINVAL) {
			e.errorf("%s: the good operation got %v, the bad one %v", name, good.Err, o.Err)
		}
	}
	if s := e.d.Stats(); s.Errors != uint64(len(bad)) {
		e.errorf("%d errors counted, want %d", s.Errors, len(bad))
	}
}

// flushes: whoever flushes is covered by a flush that began after he asked,
// and those who ask together share one.
func flushes(e *env) {
	const tasks, rounds = 16, 4
	g := newGroup(e.s)
	for i := range int64(tasks) {
		g.run("flusher", func() {
			p := buffer(e.sector)
			defer bdev.FreeBuffer(p)
			for range rounds {
				ticket := e.d.Ticket()
				if !e.must("write", e.run(&bdev.Op{Code: bdev.OpWrite, Offset: i * e.sector, Buf: p})) {
					return
				}
				e.must("flush", e.d.Flush(context.Background(), ticket))
			}
		})
	}
	g.wait()
	if n := e.d.Stats().Flushes; n < rounds || n > tasks*rounds {
		e.errorf("%d flushes for %d callers, %d times", n, tasks, rounds)
	}
}

// discard: it works or is refused; the rest of the drive stays.
func discard(e *env) {
	unit := max(e.geo.DiscardUnit, e.sector)
	p := buffer(3 * unit)
	defer bdev.FreeBuffer(p)
	stamp(p, 0, 1)
	if !e.must("write", e.run(&bdev.Op{Code: bdev.OpWrite, Buf: p})) {
		return
	}
	err := e.run(&bdev.Op{Code: bdev.OpDiscard, Offset: unit, Length: unit})
	if !e.geo.Discard {
		if !errors.Is(err, syscall.EOPNOTSUPP) {
			e.errorf("discard on a device without: %v", err)
		}
		return
	}
	e.must("discard", err)
	clear(p)
	e.must("read", e.run(&bdev.Op{Code: bdev.OpRead, Buf: p}))
	if !stamped(p[:unit], 0, 1) || !stampedAt(p[2*unit:], 2*unit, 1) {
		e.errorf("what was not discarded has changed")
	}
	stamp(p, 0, 2)
	e.must("write", e.run(&bdev.Op{Code: bdev.OpWrite, Buf: p}))
	clear(p)
	e.must("read", e.run(&bdev.Op{Code: bdev.OpRead, Buf: p}))
	if !stamped(p, 0, 2) {
		e.errorf("a discarded range does not keep what is written to it")
	}
	if err := e.run(&bdev.Op{Code: bdev.OpDiscard, Offset: 1, Length: unit}); !errors.Is(err, syscall.EINVAL) {
		e.errorf("misaligned discard: %v", err)
	}
}

func stampedAt(p []byte, offset int64, version uint64) bool { return stamped(p, offset, version) }

// orphans: operations that nobody waits for end too, each once.
func orphans(e *env) {
	const n = 64
	var ended, wrong atomic.Int32
	g := newGroup(e.s)
	g.add(1)
	ops := make([]*bdev.Op, n)
	for i := range ops {
		p := buffer(e.sector)
		defer bdev.FreeBuffer(p)
		ops[i] = &bdev.Op{Code: bdev.OpWrite, Offset: int64(i) * e.sector, Buf: p, User: uint64(i), OnDone: func(o *bdev.Op) {
			if o.Err != nil || o.User != uint64(i) {
				wrong.Add(1)
			}
			if ended.Add(1) == n {
				e.s.Go("last", func() { g.add(-1) })
			}
		}}
	}
	e.d.Start(ops[:10]...)
	e.d.Start(ops[10])
	e.d.Start(ops[11:]...)
	g.wait()
	if ended.Load() != n || wrong.Load() != 0 {
		e.errorf("%d operations ended, %d wrongly", ended.Load(), wrong.Load())
	}
}

// contexts: a wait ends with its context; the operations do not, and somebody
// is told when they have.
func contexts(e *env) {
	ended, cancel := e.s.WithCancel(context.Background())
	cancel()
	p := buffer(e.sector)
	defer bdev.FreeBuffer(p)
	b := &bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpWrite, Buf: p}}, Detached: func() { e.errorf("detached though never started") }}
	if err := e.d.Run(ended, b); !errors.Is(err, context.Canceled) || errors.Is(err, bdev.ErrDetached) {
		e.errorf("run with an ended context: %v", err)
	}
	g := newGroup(e.s)
	var detached, told atomic.Int32
	for task := range int64(12) {
		g.run("impatient", func() {
			for i := range 30 {
				p := buffer(64 * e.sector)
				free := func() { bdev.FreeBuffer(p) }
				ctx, cancel := e.s.WithTimeout(context.Background(), time.Duration(i*i)*time.Microsecond)
				b := &bdev.Batch{
					Ops: []*bdev.Op{
						{Code: bdev.OpWrite, Offset: task * 64 * e.sector, Buf: p[:32*e.sector]},
						{Code: bdev.OpWrite, Offset: (task*64 + 32) * e.sector, Buf: p[32*e.sector:]},
					},
				}
				g.add(1)
				b.Detached = func() {
					told.Add(1)
					free()
					e.s.Go("detached", func() { g.add(-1) })
				}
				err := e.d.Run(ctx, b)
				cancel()
				switch {
				case errors.Is(err, bdev.ErrDetached):
					detached.Add(1)
					continue
				case err != nil && !errors.Is(err, context.DeadlineExceeded):
					e.errorf("run: %v", err)
				}
				free()
				g.add(-1)
			}
		})
	}
	g.wait()
	if detached.Load() != told.Load() {
		e.errorf("%d batches were abandoned, %d were told of", detached.Load(), told.Load())
	}
}

// overfull: far more operations at once than any queue holds.
func overfull(e *env) {
	const tasks, n = 4, 700
	g := newGroup(e.s)
	for task := range int64(tasks) {
		g.run("greedy", func() {
			p := buffer(n * e.sector)
			defer bdev.FreeBuffer(p)
			b := &bdev.Batch{}
			for i := range int64(n) {
				v := p[i*e.sector : (i+1)*e.sector]
				at := (task*n + i) % (e.geo.Size / e.sector) * e.sector
				b.Ops = append(b.Ops, &bdev.Op{Code: bdev.OpRead, Offset: at, Buf: v, Bulk: i%3 == 0})
			}
			e.must("run", e.d.Run(context.Background(), b))
		})
	}
	g.wait()
	if got := e.d.Stats().Reads; got != tasks*n {
		e.errorf("%d reads, want %d", got, tasks*n)
	}
}

// counters: a drive counts what it did.
func counters(e *env) {
	p := buffer(3 * e.sector)
	defer bdev.FreeBuffer(p)
	clear(p)
	w := &bdev.Op{Code: bdev.OpWrite, Buf: p[:2*e.sector]}
	e.must("run", e.run(w, &bdev.Op{Code: bdev.OpRead, Offset: 4 * e.sector, Buf: p[2*e.sector:]}))
	e.must("flush", e.d.Flush(context.Background(), e.d.Ticket()))
	want := bdev.Stats{Reads: 1, Writes: 1, Flushes: 1, ReadBytes: uint64(e.sector), WriteBytes: uint64(2 * e.sector)}
	if got := e.d.Stats(); got != want {
		e.errorf("counters %s, want %s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}
