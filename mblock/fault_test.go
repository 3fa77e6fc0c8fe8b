package mblock

import (
	"context"
	"errors"
	"syscall"
	"testing"

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
