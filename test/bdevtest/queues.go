package bdevtest

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// withQueue calls fn with a queue of its own thread, through the ring where
// there is one and through the drive's engine.
func (e *env) withQueue(depth int, fn func(q bdev.Queue)) {
	kinds := []bdev.EngineKind{bdev.Auto, bdev.Pread}
	if e.s.Simulated() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		// In a simulation nobody has threads.
		if !e.s.Simulated() {
			runtime.LockOSThread()
		}
		q, err := bdev.NewQueue(e.s, bdev.QueueOptions{Depth: depth, Engine: kind})
		if e.must("new queue", err) {
			fn(q)
			if n := q.InFlight(); n != 0 {
				e.errorf("%v queue: %d operations are in flight at the end", kind, n)
			}
			e.must("close queue", q.Close())
		}
		if !e.s.Simulated() {
			runtime.UnlockOSThread()
		}
	}
}

// queue: operations go around, no more than fit, the wrong ones with errors.
func queue(e *env) {
	const depth = 8
	e.withQueue(depth, func(q bdev.Queue) {
		ops := make([]*bdev.Op, depth)
		var ended int
		for i := range ops {
			p := buffer(e.sector)
			defer bdev.FreeBuffer(p)
			ops[i] = &bdev.Op{Drive: e.d, Buf: p, OnDone: func(*bdev.Op) { ended++ }}
		}
		for round := range uint64(20) {
			for _, code := range []bdev.OpCode{bdev.OpWrite, bdev.OpRead} {
				ended = 0
				for i, o := range ops {
					o.Code, o.Offset = code, (int64(i)+int64(round))*e.sector
					if code == bdev.OpWrite {
						stamp(o.Buf, o.Offset, round)
					} else {
						clear(o.Buf)
					}
					if !q.Put(o) {
						e.errorf("put %d was refused", i)
					}
				}
				if q.Put(&bdev.Op{Drive: e.d, Code: bdev.OpFlush}) {
					e.errorf("a full queue took another")
				}
				e.must("submit", q.Submit())
				if !e.reapAll(q, depth) || ended != depth {
					e.errorf("%d operations ended", ended)
					return
				}
				for i, o := range ops {
					if o.Err != nil || (code == bdev.OpRead && !stamped(o.Buf, o.Offset, round)) {
						e.errorf("round %d: %v %d: error %v, or wrong content", round, code, i, o.Err)
						return
					}
				}
			}
		}
		e.oddOps(q, ops[0].Buf)
	})
}

// oddOps: flush, discard, vector and a refused one, together.
func (e *env) oddOps(q bdev.Queue, p []byte) {
	ops := []*bdev.Op{
		{Code: bdev.OpFlush},
		{Code: bdev.OpRead, Offset: 3, Buf: p},
		{Code: bdev.OpRead, Offset: 8 * e.sector, Vec: [][]byte{p}},
		{Code: bdev.OpDiscard, Offset: e.geo.Size / 2 / e.sector * e.sector, Length: max(e.geo.DiscardUnit, e.sector)},
	}
	for _, o := range ops {
		o.Drive = e.d
		q.Put(o)
	}
	e.reapAll(q, len(ops))
	if ops[0].Err != nil || !errors.Is(ops[1].Err, syscall.EINVAL) || ops[2].Err != nil {
		e.errorf("flush: %v; bad read: %v; vector: %v", ops[0].Err, ops[1].Err, ops[2].Err)
	}
	if err := ops[3].Err; (err == nil) != e.geo.Discard {
		e.errorf("discard: %v", err)
	}
}

// reapAll reaps n operations, in ones and at once.
func (e *env) reapAll(q bdev.Queue, n int) bool {
	want := q.InFlight() - n
	got := 0
	for got < n {
		k, err := q.Reap(1 + e.rng.IntN(n-got))
		if !e.must("reap", err) {
			return false
		}
		if k == 0 {
			e.errorf("reap returned with nothing, %d in flight", q.InFlight())
			return false
		}
		got += k
	}
	if k, err := q.Reap(0); q.InFlight() != want || got != n || k != 0 || err != nil {
		e.errorf("reaped %d and %d (%v), %d in flight, want %d", got, k, err, q.InFlight(), want)
		return false
	}
	return true
}

// queueCallbacks: a callback may put the next operation.
func queueCallbacks(e *env) {
	const depth, total = 16, 500
	e.withQueue(depth, func(q bdev.Queue) {
		put, ended := 0, 0
		next := func(o *bdev.Op) {
			ended++
			if o.Err != nil && !errors.Is(o.Err, syscall.EINVAL) {
				e.errorf("read: %v", o.Err)
			}
			if put < total {
				put++
				o.Offset = e.rng.Int64N(e.geo.Size/e.sector) * e.sector
				if put%7 == 0 {
					o.Offset++ // refused
				}
				if !q.Put(o) {
					e.errorf("a callback's put was refused")
				}
			}
		}
		for range depth {
			p := buffer(e.sector)
			defer bdev.FreeBuffer(p)
			put++
			q.Put(&bdev.Op{Drive: e.d, Code: bdev.OpRead, Buf: p, OnDone: next})
		}
		for q.InFlight() > 0 {
			if _, err := q.Reap(1); !e.must("reap", err) {
				return
			}
		}
		if ended != total {
			e.errorf("%d operations ended, want %d", ended, total)
		}
	})
}

// queueWakes: a waiting owner can be woken, also with nothing under way.
func queueWakes(e *env) {
	e.withQueue(4, func(q bdev.Queue) {
		w, ok := q.(bdev.Waker)
		if !ok {
			e.errorf("%T is no Waker", q)
			return
		}
		g := newGroup(e.s)
		for range 20 {
			var wakes atomic.Int32
			g.run("waker", func() {
				wakes.Store(1)
				w.Wake()
			})
			for wakes.Load() == 0 {
				n, err := w.Sleep()
				if n != 0 || !e.must("sleep", err) {
					e.errorf("sleep returned %d", n)
				}
			}
			g.wait()
		}
		e.sleepsInTime(w)
		// A wake may be left over: it ends one wait, not two.
		w.Wake()
		early := 0
		for range 3 {
			p := buffer(e.sector)
			q.Put(&bdev.Op{Drive: e.d, Code: bdev.OpRead, Buf: p})
			for q.InFlight() > 0 {
				n, err := q.Reap(1)
				e.must("reap", err)
				if n == 0 {
					early++
				}
			}
			bdev.FreeBuffer(p)
		}
		if early > 1 {
			e.errorf("one wake ended %d waits", early)
		}
	})
}

// sleepsInTime: a sleep ends when its time is over, not much before, unless a
// wake is left over.
func (e *env) sleepsInTime(w bdev.Waker) {
	const d = 3 * time.Millisecond
	for try := range 2 {
		start := e.s.Now()
		n, err := w.SleepFor(d)
		if n != 0 || !e.must("sleep for a time", err) {
			e.errorf("sleep returned %d", n)
		}
		if took := e.s.Now().Sub(start); try == 1 && took < d {
			e.errorf("a sleep of %v took %v", d, took)
		}
	}
}

// registered: registered memory reads and writes as any other.
func registered(e *env) {
	e.withQueue(4, func(q bdev.Queue) {
		p := buffer(8 * e.sector)
		defer bdev.FreeBuffer(p)
		id, err := bdev.RegisterBuffer(q, p)
		if err != nil && !errors.Is(err, bdev.ErrNotRegistered) {
			e.errorf("register: %v", err)
		}
		r, ok := q.(bdev.Registrar)
		if ok != (err == nil) {
			e.errorf("%T registered: %v", q, err)
		}
		if ok {
			e.must("register drive", r.RegisterDrive(e.d))
			e.must("register drive again", r.RegisterDrive(e.d))
		}
		stamp(p[:e.sector], 0, 9)
		w := &bdev.Op{Drive: e.d, Code: bdev.OpWrite, Buf: p[:e.sector], Fixed: id}
		q.Put(w)
		e.reapAll(q, 1)
		rd := &bdev.Op{Drive: e.d, Code: bdev.OpRead, Buf: p[4*e.sector : 5*e.sector], Fixed: id}
		q.Put(rd)
		e.reapAll(q, 1)
		if w.Err != nil || rd.Err != nil || !stamped(rd.Buf, 0, 9) {
			e.errorf("write %v, read %v, or wrong content", w.Err, rd.Err)
		}
		if ok {
			e.must("unregister", r.UnregisterBuffer(id))
			if err := r.UnregisterBuffer(id); !errors.Is(err, syscall.EINVAL) {
				e.errorf("unregister twice: %v", err)
			}
			e.must("unregister drive", r.UnregisterDrive(e.d))
		}
	})
}
