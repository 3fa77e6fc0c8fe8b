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

// proves S11 S40
func TestFailedWritePoisons(t *testing.T) {
	const size = 6 << 20
	data := random(size, 1)
	for seed := range uint64(30) {
		simulate(t, seed, func(s *sched.Sched) {
			r := newRig(t, s, diskFor(size))
			r.disk.Inject(sim.Fault{Code: bdev.OpWrite, Skip: uint64(s.Rand().IntN(6)), Count: 1, Err: syscall.EIO})
			w := NewWriter(r.config(size))
			ctx := context.Background()
			failed := 0
			var fin sched.Completion
			fin.Init(s)
			left := 3
			for range 3 {
				s.Go("write", func() {
					n, err := w.Write(ctx, data[:2<<20])
					if err != nil {
						if !errors.Is(err, api.EIO) || n != 0 {
							t.Errorf("write: %d, %v", n, err)
						}
						failed++
					}
					if left--; left == 0 {
						fin.Done()
					}
				})
			}
			if err := fin.Wait(ctx); err != nil {
				t.Error(err)
			}
			if failed == 0 || w.Err() == nil {
				t.Fatalf("%d failed, %v", failed, w.Err())
			}
			_, sealErr := w.Seal(ctx)
			for what, err := range map[string]error{
				"write": second(w.Write(ctx, data[:blockSize])),
				"read":  second(w.ReadAt(ctx, make([]byte, 10), 0)),
				"seal":  sealErr,
			} {
				if !errors.Is(err, api.EIO) {
					t.Errorf("%s of a poisoned mblock: %v", what, err)
				}
			}
			if r.pins.Load() != 0 {
				t.Errorf("%d pins", r.pins.Load())
			}
		})
	}
}

// proves S40
//
// A failed flush poisons every mblock with writes since the last good one, also
// those that ask later; mblocks begun after it are not touched by it.
func TestFailedFlushPoisons(t *testing.T) {
	for seed := range uint64(50) {
		simulate(t, seed, func(s *sched.Sched) {
			r := newRig(t, s, sim.NewDisk(200*blockSize, sim.DiskOptions{}))
			r.disk.Inject(sim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
			ctx := context.Background()
			data := random(20*blockSize, 1)
			writer := func(start uint64) *Writer {
				c := r.config(20 * blockSize)
				c.Extent.Start = start
				w := NewWriter(c)
				if _, err := w.Write(ctx, data); err != nil {
					t.Fatal(err)
				}
				return w
			}
			first, second := writer(10), writer(40)
			for i, w := range []*Writer{first, second} {
				for range 2 {
					if _, err := w.Seal(ctx); !errors.Is(err, api.EIO) {
						t.Fatalf("seal %d: %v", i, err)
					}
				}
				if w.Err() == nil {
					t.Errorf("%d is not poisoned", i)
				}
			}
			third := writer(70)
			if _, err := third.Seal(ctx); err != nil {
				t.Fatalf("an mblock begun after the failed flush: %v", err)
			}
		})
	}
}

// proves S40
func TestReadErrorIsTheObjectsAlone(t *testing.T) {
	for _, size := range []int{4 * blockSize, 40 * blockSize} {
		r := newRig(t, nil, sim.NewDisk(200*blockSize, sim.DiskOptions{}))
		data := random(size, 1)
		c1, o1 := r.write(data)
		c2 := r.config(int64(size))
		c2.Extent.Start += 100
		w := NewWriter(c2)
		if _, err := w.Write(context.Background(), data); err != nil {
			t.Fatal(err)
		}
		o2 := r.seal(c2, w)
		bad := c1.Extent.Offset() + 2*blockSize
		r.disk.SetUnreadable(bad, 1)
		one, two := NewReader(c1, o1, nil, true), NewReader(c2, o2, nil, true)
		p := make([]byte, size)
		var e *api.Error
		_, err := one.ReadAt(context.Background(), p, 2*blockSize)
		if !errors.As(err, &e) || e.Code != api.EIO || e.Device != "sim" || e.Offset != bad || !errors.Is(err, syscall.EIO) {
			t.Errorf("read of an unreadable block: %v", err)
		}
		if err := one.Verify(context.Background()); !errors.Is(err, api.EIO) {
			t.Errorf("verify: %v", err)
		}
		if n, err := one.ReadAt(context.Background(), p[:blockSize], 3*blockSize); err != nil || n != blockSize {
			t.Errorf("read of its neighbour: %d, %v", n, err)
		}
		readAll(t, two, data)
		if size > 16*blockSize {
			r.disk.SetUnreadable(c1.Extent.Offset()+int64(size), 1)
			if _, err := one.ReadAt(context.Background(), p[:1], 0); !errors.Is(err, api.EIO) {
				t.Errorf("read with unreadable checksums: %v", err)
			}
		}
		if r.pins.Load() != 0 {
			t.Errorf("%d pins", r.pins.Load())
		}
	}
}

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

// A drive that has vanished gives EIO, and nothing hangs.
func TestVanishedDrive(t *testing.T) {
	simulate(t, 1, func(s *sched.Sched) {
		r := newRig(t, s, diskFor(40*blockSize))
		data := random(40*blockSize, 1)
		c, o := r.write(data)
		r.disk.Vanish()
		if _, err := NewReader(c, o, nil, true).ReadAt(context.Background(), make([]byte, 10), 0); !errors.Is(err, api.EIO) {
			t.Errorf("read: %v", err)
		}
		w := NewWriter(r.config(40 * blockSize))
		if _, err := w.Write(context.Background(), data); !errors.Is(err, api.EIO) {
			t.Errorf("write: %v", err)
		}
		if r.pins.Load() != 0 {
			t.Errorf("%d pins", r.pins.Load())
		}
	})
}

// Seals at once, and while a write is under way: one works, the others get its
// result.
func TestConcurrentSeals(t *testing.T) {
	for seed := range uint64(60) {
		simulate(t, seed, func(s *sched.Sched) {
			const size = 40 * blockSize
			r := newRig(t, s, diskFor(size))
			w := NewWriter(r.config(size))
			s.Go("write", func() {
				if _, err := w.Write(context.Background(), random(size, 1)); err != nil {
					t.Error(err)
				}
			})
			for w.Len() == 0 {
				s.Point()
			}
			var fin sched.Completion
			fin.Init(s)
			left := 3
			for range left {
				s.Go("seal", func() {
					if v, err := w.Seal(context.Background()); err != nil || v.Written != size {
						t.Errorf("%+v, %v", v, err)
					}
					if left--; left == 0 {
						fin.Done()
					}
				})
			}
			if err := fin.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			if st := r.drive.Stats(); st.Writes != 2 || st.Flushes != 1 {
				t.Errorf("%d writes and %d flushes: a seal was done again", st.Writes, st.Flushes)
			}
		})
	}
}

// proves S40
//
// The failed flush may come between two writes of an mblock; its first write is
// then as lost as if it had come after both.
func TestFlushFailsBetweenWrites(t *testing.T) {
	simulate(t, 1, func(s *sched.Sched) {
		r := newRig(t, s, diskFor(40*blockSize))
		r.disk.Inject(sim.Fault{Code: bdev.OpFlush, Count: 1, Err: syscall.EIO})
		ctx := context.Background()
		w := NewWriter(r.config(40 * blockSize))
		if _, err := w.Write(ctx, random(20*blockSize, 1)); err != nil {
			t.Fatal(err)
		}
		if err := r.drive.Flush(ctx, r.drive.Ticket()); !errors.Is(err, bdev.ErrFlushFailed) {
			t.Fatalf("flush: %v", err)
		}
		if _, err := w.Write(ctx, random(20*blockSize, 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Seal(ctx); !errors.Is(err, api.EIO) {
			t.Fatalf("seal: %v", err)
		}
	})
}

// proves S40
func TestFailedPageWritePoisons(t *testing.T) {
	simulate(t, 1, func(s *sched.Sched) {
		r := newRig(t, s, diskFor(40*blockSize))
		r.disk.Inject(sim.Fault{Code: bdev.OpWrite, Skip: 1, Count: 1, Err: syscall.EIO})
		w := NewWriter(r.config(40 * blockSize))
		if _, err := w.Write(context.Background(), random(40*blockSize, 1)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := w.Seal(context.Background()); !errors.Is(err, api.EIO) {
				t.Fatalf("seal: %v", err)
			}
		}
		if w.Err() == nil || r.pins.Load() != 0 {
			t.Errorf("%v, %d pins", w.Err(), r.pins.Load())
		}
	})
}
