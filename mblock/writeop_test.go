package mblock

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// begin begins a write that must begin.
func begin(tb testing.TB, w *Writer, op *WriteOp, p []byte) {
	tb.Helper()
	if err := w.BeginWrite(op, p); err != nil {
		tb.Fatal(err)
	}
}

// put puts operations on a queue that has room.
func put(tb testing.TB, q bdev.Queue, ops []*bdev.Op) {
	tb.Helper()
	for _, o := range ops {
		if !q.Put(o) {
			tb.Fatal("the queue is full")
		}
	}
}

// Writes that one queue's owner begins lie in the order of their beginnings,
// whatever the order of their ends, beside those of tasks that wait; a Seal
// that comes meanwhile has them all.
//
// proves S11, S12
func TestBegunWritesInFlight(t *testing.T) {
	const depth, writes = 6, 30
	for seed := range seeds(60) {
		simulate(t, seed, func(s *sched.Sched) {
			const capacity = 8 << 20
			r := newRig(t, s, diskFor(capacity))
			c := r.config(capacity)
			w := NewWriter(c)
			q, err := bdev.NewQueue(s, bdev.QueueOptions{Depth: 4 * depth})
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			type slot struct {
				op   WriteOp
				p    []byte
				left int // operations under way, -1: free
			}
			slots := make([]*slot, depth)
			for i := range slots {
				slots[i] = &slot{left: -1}
			}
			end := func(x *slot) {
				if n, err := x.op.End(); n != len(x.p) || err != nil {
					t.Errorf("end: %d of %d, %v", n, len(x.p), err)
				}
				clear(x.p) // it is ours again
				x.left = -1
			}
			rng := s.Rand()
			for i := range writes {
				x := slots[rng.IntN(depth)]
				for x.left >= 0 {
					if x.left == 0 {
						end(x)
					} else if _, err := q.Reap(1); err != nil {
						t.Fatal(err)
					}
				}
				n := (1 + rng.IntN(40)) * blockSize
				if i == writes-1 {
					n -= rng.IntN(blockSize)
				}
				x.p = alignedBytes(n, rng.IntN(2)*8) // direct or copied
				copy(x.p, random(n, seed<<16|uint64(i)))
				want = append(want, x.p...)
				begin(t, w, &x.op, x.p)
				if direct := aligned(x.p) && n%blockSize == 0; x.op.Direct() != direct {
					t.Errorf("direct: %v, want %v", x.op.Direct(), direct)
				}
				x.left = len(x.op.Ops())
				for _, o := range x.op.Ops() {
					o.OnDone = func(*bdev.Op) { x.left-- }
				}
				put(t, q, x.op.Ops())
			}
			var sealed sched.Completion
			sealed.Init(s)
			s.Go("seal", func() {
				o := r.seal(c, w)
				if w.InFlight() != 0 {
					t.Errorf("sealed with %d writes in flight", w.InFlight())
				}
				readAll(t, NewReader(c, o, nil, true), want)
				sealed.Done()
			})
			for q.InFlight() > 0 {
				if _, err := q.Reap(q.InFlight()); err != nil {
					t.Fatal(err)
				}
			}
			for _, x := range slots {
				if x.left == 0 {
					end(x)
				}
			}
			if err := sealed.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			if r.pins.Load() != 0 {
				t.Errorf("%d pins are left", r.pins.Load())
			}
		})
	}
}

// proves S12
func TestSealWaitsForBegunWrites(t *testing.T) {
	simulate(t, 1, func(s *sched.Sched) {
		const capacity = 1 << 20
		r := newRig(t, s, diskFor(capacity))
		c := r.config(capacity)
		w := NewWriter(c)
		var a, b WriteOp
		p := random(8*blockSize, 1)
		begin(t, w, &a, p[:4*blockSize])
		begin(t, w, &b, p[4*blockSize:])
		ctx, cancel := s.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := w.Seal(ctx); !errors.Is(err, api.ETIMEDOUT) {
			t.Fatalf("sealed before the writes began: %v", err)
		}
		for _, op := range []*WriteOp{&b, &a} {
			r.drive.Start(op.Ops()...)
			if err := s.Sleep(context.Background(), time.Second); err != nil {
				t.Fatal(err)
			}
			if n, err := op.End(); n != 4*blockSize || err != nil {
				t.Fatal(n, err)
			}
		}
		readAll(t, NewReader(c, r.seal(c, w), nil, true), p)
	})
}

// A write that is cancelled leaves nothing, or a hole that nobody commits.
func TestCancelledWrites(t *testing.T) {
	r := newRig(t, nil, diskFor(40*blockSize))
	var a, b WriteOp
	p := random(8*blockSize, 1)

	c := r.config(40 * blockSize)
	w := NewWriter(c)
	begin(t, w, &a, p[:blockSize])
	a.Cancel()
	begin(t, w, &a, p[:5000])
	a.Cancel()
	begin(t, w, &a, p)
	begin(t, w, &b, nil)
	if len(b.Ops()) != 0 {
		t.Error("an empty write has operations")
	}
	b.Cancel()
	r.drive.Start(a.Ops()...)
	if n, err := a.End(); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	readAll(t, NewReader(c, r.seal(c, w), nil, true), p)

	w = NewWriter(r.config(40 * blockSize))
	begin(t, w, &a, p[:blockSize])
	begin(t, w, &b, p[blockSize:])
	a.Cancel()
	r.drive.Start(b.Ops()...)
	if _, err := b.End(); err != nil {
		t.Error(err)
	}
	if _, err := w.Seal(context.Background()); !errors.Is(err, api.EIO) {
		t.Errorf("sealed with a hole: %v", err)
	}
	if err := w.BeginWrite(&a, p); !errors.Is(err, api.EIO) {
		t.Errorf("write behind a hole: %v", err)
	}
	if r.pins.Load() != 0 {
		t.Errorf("%d pins are left", r.pins.Load())
	}
}

// proves S11
func TestRefusedBeginnings(t *testing.T) {
	r := newRig(t, nil, diskFor(40*blockSize))
	p := random(40*blockSize, 1)
	var op WriteOp
	w := NewWriter(r.config(10 * blockSize))
	if err := w.BeginWrite(&op, p[:11*blockSize]); !errors.Is(err, api.EFBIG) {
		t.Errorf("past the capacity: %v", err)
	}
	r.refuse.Store(true)
	if err := w.BeginWrite(&op, p[:blockSize]); !errors.Is(err, api.ENOENT) {
		t.Errorf("of an object that goes: %v", err)
	}
	r.refuse.Store(false)

	w = NewWriter(r.config(10 * blockSize))
	begin(t, w, &op, p[:100])
	if err := w.BeginWrite(new(WriteOp), p[:blockSize]); !errors.Is(err, api.ESTATE) {
		t.Errorf("behind a write that was no multiple: %v", err)
	}
	r.disk.Inject(sim.Fault{Code: bdev.OpWrite, Err: syscall.EIO, Count: 1})
	r.drive.Start(op.Ops()...)
	if n, err := op.End(); n != 0 || !errors.Is(err, api.EIO) {
		t.Errorf("failed write: %d, %v", n, err)
	}
	if _, err := w.Seal(context.Background()); !errors.Is(err, api.EIO) {
		t.Errorf("seal behind a failed write: %v", err)
	}
	w = NewWriter(r.config(10 * blockSize))
	r.seal(w.cfg, w)
	if err := w.BeginWrite(&op, p[:100]); !errors.Is(err, api.ESTATE) {
		t.Errorf("behind a seal: %v", err)
	}
	if r.pins.Load() != 0 {
		t.Errorf("%d pins are left", r.pins.Load())
	}
}

// Who changes memory while the device reads it harms that block, and no other.
//
// proves S11
func TestBytesThatChangeUnderWay(t *testing.T) {
	r := newRig(t, nil, diskFor(100*blockSize))
	c := r.config(100 * blockSize)
	w := NewWriter(c)
	p := random(30*blockSize, 1)
	want := bytes.Clone(p)
	var op WriteOp
	begin(t, w, &op, p)
	op.Sum()
	p[7*blockSize+123]++
	r.drive.Start(op.Ops()...)
	if _, err := op.End(); err != nil {
		t.Fatal(err)
	}
	rd := NewReader(c, r.seal(c, w), nil, true)
	got := make([]byte, blockSize)
	for i := range 30 {
		_, err := rd.ReadAt(context.Background(), got, int64(i)*blockSize)
		if i == 7 {
			if !errors.Is(err, api.ECORRUPT) || !bytes.Equal(got, make([]byte, blockSize)) {
				t.Errorf("the changed block: %v", err)
			}
		} else if err != nil || !bytes.Equal(got, want[i*blockSize:(i+1)*blockSize]) {
			t.Errorf("block %d: %v", i, err)
		}
	}
}

func TestSteadyWritesAllocateNothing(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, nil, diskFor(size))
	w := NewWriter(r.config(size))
	var op WriteOp
	p := bdev.AllocBuffer(blockSize)
	defer bdev.FreeBuffer(p)
	clear(p)
	run := func() {
		begin(t, w, &op, p)
		if n, err := op.End(); n != blockSize || err != nil {
			t.Fatal(n, err)
		}
	}
	run() // makes room for the first page of checksums
	if n := testing.AllocsPerRun(500, run); n != 0 && !checkedBuild {
		t.Errorf("%v allocations a write", n)
	}
}
