package mblock

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// slow makes every operation of a kind take a second.
func slow(code bdev.OpCode) sim.Fault { return sim.Fault{Code: code, Delay: time.Second} }

// Reads whose context ends: the caller's memory is its own at once, the pin
// goes when the device is through.
func TestReadGivesUp(t *testing.T) {
	for seed := range uint64(100) {
		simulate(t, seed, func(s *sched.Sched) {
			const size = 30 * blockSize
			r := newRig(t, s, diskFor(size))
			data := random(size, 1)
			c, o := r.write(data)
			reader := NewReader(c, o, nil, true)
			r.disk.Inject(slow(bdev.OpRead))
			ctx, cancel := s.WithTimeout(context.Background(), time.Duration(s.Rand().IntN(1000))*time.Millisecond)
			defer cancel()
			p := alignedBytes(8*blockSize, 0)
			n, err := reader.ReadAt(ctx, p, 0)
			if n != 0 || !errors.Is(err, api.ETIMEDOUT) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("read: %d, %v", n, err)
			}
			for i := range p {
				p[i] = 0x5a
			}
			held := r.pins.Load()
			if err := s.Sleep(context.Background(), time.Hour); err != nil {
				t.Error(err)
			}
			if len(bytes.Trim(p, "\x5a")) != 0 {
				t.Fatalf("seed %d: the caller's memory changed after the read had returned", seed)
			}
			if r.pins.Load() != 0 || r.pinned.Load() > 0 && held > 1 {
				t.Fatalf("%d pins, %d at the time", r.pins.Load(), held)
			}
			short, stop := s.WithTimeout(context.Background(), time.Millisecond)
			defer stop()
			if err := reader.Verify(short); !errors.Is(err, api.ETIMEDOUT) {
				t.Fatalf("verify: %v", err)
			}
			if r.pins.Load() != 1 {
				t.Errorf("%d pins while the device reads", r.pins.Load())
			}
			if err := s.Sleep(context.Background(), time.Hour); err != nil {
				t.Error(err)
			}
			r.disk.Heal()
			readAll(t, reader, data)
			if r.pins.Load() != 0 {
				t.Errorf("%d pins", r.pins.Load())
			}
		})
	}
}

// A long read whose context ends, or that meets a bad block: what it returns is
// right, the rest of the memory is zeros, and both stay so.
func TestLongReadStopsInTheMiddle(t *testing.T) {
	const size = 5<<20 + 100
	data := random(size, 1)
	written := diskFor(size)
	var o layout.Object
	simulate(t, 1, func(s *sched.Sched) { _, o = newRig(t, s, written).write(data) })
	middle := 0
	for seed := range seeds(60) {
		simulate(t, seed, func(s *sched.Sched) {
			r := newRig(t, s, written.Clone())
			c := r.config(size)
			c.ID, c.Birth = o.ID, o.Birth
			reader := NewReader(c, o, nil, true)
			ctx := context.Background()
			off := s.Rand().IntN(3 * blockSize)
			want := size - off
			if s.Rand().IntN(2) == 0 {
				bad := s.Rand().IntN(size)
				r.disk.FlipBit(c.Extent.Offset()+int64(bad), 0)
				want = max(bad/blockSize*blockSize-off, 0)
			} else {
				r.disk.Inject(sim.Fault{Code: bdev.OpRead, Delay: time.Second, Probability: 0.3})
				var cancel context.CancelFunc
				ctx, cancel = s.WithTimeout(ctx, time.Second/2)
				defer cancel()
			}
			p := alignedBytes(size, s.Rand().IntN(2))
			n, err := reader.ReadAt(ctx, p, int64(off))
			switch {
			case isEOF(err) && n == size-off, errors.Is(err, api.ETIMEDOUT):
			case errors.Is(err, api.ECORRUPT) && (n == want || want < 0):
			default:
				t.Fatalf("seed %d: %d, %v; want %d", seed, n, err, want)
			}
			if n > 0 && n < size-off {
				middle++
			}
			for range 2 {
				if !bytes.Equal(p[:n], data[off:off+n]) || len(bytes.Trim(p[n:], "\x00")) != 0 {
					t.Fatalf("seed %d: wrong bytes after %d, %v", seed, n, err)
				}
				if err := s.Sleep(context.Background(), time.Hour); err != nil {
					t.Error(err)
				}
			}
			if r.pins.Load() != 0 {
				t.Errorf("%d pins", r.pins.Load())
			}
		})
	}
	if middle < 10 && !raced {
		t.Errorf("only %d reads stopped in the middle", middle)
	}
}

// Writes whose context ends poison the mblock; the caller's memory is not
// looked at any more, and the pin goes when the device is through.
func TestWriteGivesUp(t *testing.T) {
	const size = 2*bouncePart + blockSize // three parts
	data := random(size, 1)
	for seed := range uint64(30) {
		simulate(t, seed, func(s *sched.Sched) {
			r := newRig(t, s, diskFor(size))
			r.disk.Inject(slow(bdev.OpWrite))
			w := NewWriter(r.config(size))
			ctx, cancel := s.WithTimeout(context.Background(), time.Duration(1+s.Rand().IntN(1500))*time.Millisecond)
			defer cancel()
			n, err := w.Write(ctx, data)
			if n != 0 || !errors.Is(err, api.ETIMEDOUT) {
				t.Fatalf("write: %d, %v", n, err)
			}
			if w.InFlight() != r.pins.Load() || w.InFlight() > 2 {
				t.Errorf("%d in flight, %d pins", w.InFlight(), r.pins.Load())
			}
			if _, err := w.Seal(context.Background()); !errors.Is(err, api.EIO) {
				t.Fatalf("seal: %v", err)
			}
			if err := s.Sleep(context.Background(), time.Hour); err != nil {
				t.Error(err)
			}
			if w.InFlight() != 0 || r.pins.Load() != 0 {
				t.Errorf("%d in flight, %d pins", w.InFlight(), r.pins.Load())
			}
		})
	}
	r := newRig(t, nil, diskFor(blockSize))
	w := NewWriter(r.config(blockSize))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.Write(ctx, make([]byte, 10)); !errors.Is(err, api.ECANCELED) || w.Err() != nil || w.Len() != 0 {
		t.Errorf("a write that never began: %v, %v", err, w.Err())
	}
}

// proves S12
//
// A Seal whose context ends, at whatever it waits for, is as good as before
// when it is repeated.
func TestSealGivesUpAndGoesOn(t *testing.T) {
	gaveUp := 0
	for seed := range uint64(200) {
		simulate(t, seed, func(s *sched.Sched) {
			size := []int{0, 3 * blockSize, 60 * blockSize}[s.Rand().IntN(3)]
			r := newRig(t, s, diskFor(int64(size)))
			r.disk.Inject(slow([]bdev.OpCode{bdev.OpWrite, bdev.OpFlush, 0}[s.Rand().IntN(3)]))
			c := r.config(int64(size))
			w := NewWriter(c)
			data := random(size, seed)
			s.Go("write", func() {
				if _, err := w.Write(context.Background(), data); err != nil && size > 0 {
					t.Error(err)
				}
			})
			for w.Len() < int64(size) {
				if err := s.Sleep(context.Background(), time.Microsecond); err != nil {
					t.Error(err)
				}
			}
			var sealed Sealed
			for {
				ctx, cancel := s.WithTimeout(context.Background(), time.Duration(s.Rand().IntN(3000))*time.Millisecond)
				var err error
				sealed, err = w.Seal(ctx)
				cancel()
				if err == nil {
					break
				}
				gaveUp++
				if !errors.Is(err, api.ETIMEDOUT) {
					t.Fatalf("seed %d: seal: %v", seed, err)
				}
				if _, err := w.Write(context.Background(), data[:min(len(data), blockSize)]); !errors.Is(err, api.ESTATE) {
					t.Fatalf("write after a seal: %v", err)
				}
			}
			after := on(t, c, r.disk.Durable())
			readAll(t, NewReader(after, object(c, sealed), nil, true), data)
			if err := s.Sleep(context.Background(), time.Hour); err != nil {
				t.Error(err)
			}
			if r.pins.Load() != 0 {
				t.Errorf("%d pins", r.pins.Load())
			}
		})
	}
	if gaveUp < 50 {
		t.Errorf("only %d seals gave up", gaveUp)
	}
}
