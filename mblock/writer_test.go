package mblock

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// readAll reads a committed object and compares it.
func readAll(tb testing.TB, r *Reader, want []byte) {
	tb.Helper()
	got := make([]byte, len(want)+1)
	n, err := r.ReadAt(context.Background(), got, 0)
	if !isEOF(err) || n != len(want) || !bytes.Equal(got[:n], want) {
		tb.Fatalf("read %d of %d bytes, %v; equal: %v", n, len(want), err, bytes.Equal(got[:n], want[:n]))
	}
}

// proves S11
func TestManyWritesInFlight(t *testing.T) {
	const tasks, each = 5, 6
	for seed := range seeds(40) {
		simulate(t, seed, func(s *sched.Sched) {
			const capacity = 8 << 20
			r := newRig(t, s, diskFor(capacity))
			c := r.config(capacity)
			w := NewWriter(c)
			// Each write carries its task and number in each block; it must be
			// found whole, and each task's in the order of its calls.
			sizes := make([][]int, tasks)
			done := 0
			var fin sched.Completion
			fin.Init(s)
			total := 0
			for k := range tasks {
				for range each {
					n := (1 + s.Rand().IntN(70)) * blockSize
					sizes[k] = append(sizes[k], n)
					total += n
				}
				s.Go("writer", func() {
					ctx := context.Background()
					if k%2 == 0 { // copied, not direct
						var cancel context.CancelFunc
						ctx, cancel = s.WithCancel(ctx)
						defer cancel()
					}
					for i, n := range sizes[k] {
						p := alignedBytes(n, 0)
						for at := 0; at < n; at += blockSize {
							binary.LittleEndian.PutUint64(p[at:], uint64(k)<<32|uint64(i)<<16|uint64(at/blockSize))
						}
						if got, err := w.Write(ctx, p); err != nil || got != n {
							t.Errorf("write: %d, %v", got, err)
						}
						clear(p) // it is ours again
					}
					if done++; done == tasks {
						fin.Done()
					}
				})
			}
			if err := fin.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			o := r.seal(c, w)
			if o.Written != uint64(total) {
				t.Fatalf("written %d, want %d", o.Written, total)
			}
			got := make([]byte, total)
			if _, err := NewReader(c, o, nil, true).ReadAt(context.Background(), got, 0); err != nil {
				t.Fatal(err)
			}
			next := make([]int, tasks)
			for at := 0; at < total; {
				tag := binary.LittleEndian.Uint64(got[at:])
				k, i := int(tag>>32), int(tag>>16&0xffff)
				if i != next[k] {
					t.Fatalf("seed %d: write %d of task %d is where its write %d should be", seed, i, k, next[k])
				}
				next[k]++
				for b := range sizes[k][i] / blockSize {
					if v := binary.LittleEndian.Uint64(got[at:]); v != uint64(k)<<32|uint64(i)<<16|uint64(b) {
						t.Fatalf("seed %d: at %d is %#x", seed, at, v)
					}
					at += blockSize
				}
			}
			if r.pins.Load() != 0 || w.InFlight() != 0 {
				t.Errorf("%d pins and %d in flight are left", r.pins.Load(), w.InFlight())
			}
		})
	}
}

// proves S11
func TestWritesAreRefusedWhole(t *testing.T) {
	r := newRig(t, nil, diskFor(40*blockSize))
	c := r.config(10*blockSize + 100)
	w := NewWriter(c)
	ctx := context.Background()
	data := random(11*blockSize, 1)
	check := func(p []byte, n int, want error) {
		t.Helper()
		got, err := w.Write(ctx, p)
		if got != n || !errors.Is(err, want) {
			t.Fatalf("write of %d: %d, %v; want %d, %v", len(p), got, err, n, want)
		}
	}
	check(data[:8*blockSize], 8*blockSize, nil)
	check(nil, 0, nil)
	check(data[8*blockSize:], 0, api.EFBIG)
	check(data[8*blockSize:10*blockSize+101], 0, api.EFBIG)
	if w.Len() != 8*blockSize || w.Err() != nil {
		t.Fatalf("a refused write changed something: %d bytes, %v", w.Len(), w.Err())
	}
	check(data[8*blockSize:10*blockSize+100], 2*blockSize+100, nil)
	check(data[:1], 0, api.EFBIG)
	o := r.seal(c, w)
	check(data[:1], 0, api.ESTATE)
	if o.Written != 10*blockSize+100 || len(o.Sums) != 11 {
		t.Fatalf("sealed: %+v", o)
	}
	readAll(t, NewReader(c, o, nil, true), data[:10*blockSize+100])

	w = NewWriter(r.config(10 * blockSize))
	check(data[:100], 100, nil)
	check(data[:blockSize], 0, api.ESTATE)
	check(nil, 0, nil)
}

// proves S11 S12
func TestWrittenLengthIsExact(t *testing.T) {
	edges := []int{0, 1, 16 * blockSize, 17 * blockSize, 1016 * blockSize, 1017 * blockSize}
	for seed := range seeds(150) {
		simulate(t, seed, func(s *sched.Sched) {
			rng := s.Rand()
			size := max(edges[rng.IntN(len(edges))]+rng.IntN(5)*blockSize/2-blockSize+rng.IntN(3), 0)
			if rng.IntN(5) != 0 {
				size = min(size, 20*blockSize) // the large ones are slow
			}
			data := random(size, seed)
			r := newRig(t, s, diskFor(int64(size)))
			c := r.config(int64(size))
			w := NewWriter(c)
			ctx := context.Background()
			if rng.IntN(2) == 0 {
				var cancel context.CancelFunc
				ctx, cancel = s.WithCancel(ctx)
				defer cancel()
			}
			for rest := data; len(rest) > 0; {
				n := min((1+rng.IntN(1+size/blockSize))*blockSize, len(rest))
				p := rest[:n]
				if rng.IntN(2) == 0 {
					p = append(alignedBytes(0, 7), p...)
				}
				if got, err := w.Write(ctx, p); err != nil || got != n {
					t.Fatalf("seed %d: write: %d, %v", seed, got, err)
				}
				rest = rest[n:]
			}
			sealed, err := w.Seal(ctx)
			if err != nil {
				t.Fatal(err)
			}
			again, err := w.Seal(ctx)
			if err != nil || !reflect.DeepEqual(again, sealed) {
				t.Fatalf("seed %d: second seal: %+v, %v", seed, again, err)
			}
			if sealed.Written != int64(size) || sealed.UsedBlocks != BlocksFor(int64(size)) {
				t.Fatalf("seed %d: sealed %+v of %d bytes", seed, sealed, size)
			}
			// What a power cut leaves that keeps nothing that was volatile.
			after := on(t, c, r.disk.Durable())
			reader := NewReader(after, object(c, sealed), nil, true)
			readAll(t, reader, data)
			last := make([]byte, blockSize)
			if size%blockSize != 0 {
				if _, err := r.disk.ReadAt(last, c.Extent.Offset()+int64(size/blockSize)*blockSize); err != nil {
					t.Fatal(err)
				}
			}
			if len(bytes.Trim(last[size%blockSize:], "\x00")) != 0 {
				t.Fatalf("seed %d: the last block is not padded with zeros", seed)
			}
			if err := reader.Verify(context.Background()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		})
	}
}

// proves S12
//
// The machine stops at each boundary of device operations in turn; if Seal had
// returned by then, every survivor has the whole content.
func TestSealedSurvivesAnyCut(t *testing.T) {
	data := random(40*blockSize+5, 3)
	for at := uint64(1); ; at++ {
		disk := diskFor(64 * blockSize)
		s := sched.New(at)
		cutter := &sim.Cutter{Sched: s, At: at}
		var sealed *Sealed
		var c Config
		err := s.Run(func() {
			drive, err := sim.Open(s, disk, sim.OpenOptions{OnIO: cutter.OnIO})
			if err != nil {
				t.Error(err)
				return
			}
			r := &rig{tb: t, s: s, disk: disk, drive: drive}
			c = r.config(64 * blockSize)
			w := NewWriter(c)
			for from := 0; from < len(data); from += 8 * blockSize {
				if _, err := w.Write(context.Background(), data[from:min(from+8*blockSize, len(data))]); err != nil {
					t.Error(err)
				}
			}
			// Flushes of others, at any time, promise nothing about ours.
			s.Go("other", func() { _ = drive.Flush(context.Background(), drive.Ticket()) })
			v, err := w.Seal(context.Background())
			if err != nil {
				t.Error(err)
			}
			sealed = &v
			// Go on writing something volatile elsewhere.
			p := alignedBytes(blockSize, 0)
			_ = drive.Flush(context.Background(), drive.Ticket())
			other := NewWriter(Config{Sched: s, Drive: drive, Extent: c.Extent, Capacity: 0})
			_, _ = other.Write(context.Background(), p[:0])
		})
		if err != nil && !errors.Is(err, sched.ErrCut) {
			t.Fatal(err)
		}
		if sealed != nil {
			for range 20 {
				after, cut := disk.Survivor(s.Rand(), sim.CutOptions{})
				cfg := on(t, c, after)
				reader := NewReader(cfg, object(c, *sealed), nil, true)
				if err := reader.Verify(context.Background()); err != nil {
					t.Fatalf("cut at %d, %v: %v", at, cut, err)
				}
				readAll(t, reader, data)
			}
		}
		if err == nil {
			if at < 10 || sealed == nil {
				t.Fatalf("only %d boundaries", at)
			}
			return
		}
	}
}

func TestEmptyMblockSeals(t *testing.T) {
	r := newRig(t, nil, diskFor(blockSize))
	c := r.config(0)
	w := NewWriter(c)
	if _, err := w.Write(context.Background(), []byte{1}); !errors.Is(err, api.EFBIG) {
		t.Fatalf("write to an mblock without capacity: %v", err)
	}
	s, err := w.Seal(context.Background())
	if err != nil || s.Written != 0 || s.Sums != nil || s.UsedBlocks != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if n := r.drive.Stats(); n.Writes+n.Flushes != 0 {
		t.Errorf("an empty mblock cost I/O: %+v", n)
	}
	reader := NewReader(c, object(c, s), nil, true)
	readAll(t, reader, nil)
	if err := reader.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// proves S13
//
// An uncommitted mblock is readable where writes have ended, not where they
// have not.
func TestReadOfUncommitted(t *testing.T) {
	for seed := range seeds(60) {
		simulate(t, seed, func(s *sched.Sched) {
			const blocks = 200
			r := newRig(t, s, diskFor(blocks*blockSize))
			w := NewWriter(r.config(blocks * blockSize))
			ctx := context.Background()
			data := random(blocks*blockSize, seed)
			ended := make([]bool, blocks)
			var fin sched.Completion
			fin.Init(s)
			s.Go("writer", func() {
				left := 0
				at := 0
				for at < blocks {
					n := min(1+s.Rand().IntN(40), blocks-at)
					from := at
					at += n
					left++
					before := w.Len()
					s.Go("write", func() {
						if _, err := w.Write(ctx, data[from*blockSize : at*blockSize][:n*blockSize]); err != nil {
							t.Error(err)
						}
						for i := range n {
							ended[from+i] = true
						}
						if left--; left == 0 && at == blocks {
							fin.Done()
						}
					})
					for w.Len() == before { // keep the order of the calls
						if err := s.Sleep(ctx, 1000); err != nil {
							t.Error(err)
						}
					}
				}
			})
			for range 100 {
				off := s.Rand().IntN(blocks * blockSize)
				p := make([]byte, s.Rand().IntN(30*blockSize))
				must := 0 // bytes that had been written before the read began
				for must < len(p) && off+must < len(data) && ended[(off+must)/blockSize] {
					must++
				}
				n, err := w.ReadAt(ctx, p, int64(off))
				if n < must || n < len(p) && !isEOF(err) || n == len(p) && err != nil {
					t.Fatalf("seed %d: read %d+%d: %d, %v; %d had been written", seed, off, len(p), n, err, must)
				}
				if !bytes.Equal(p[:n], data[off:off+n]) {
					t.Fatalf("seed %d: read %d+%d is wrong", seed, off, len(p))
				}
			}
			if err := fin.Wait(ctx); err != nil {
				t.Error(err)
			}
			if n, err := w.ReadAt(ctx, make([]byte, len(data)), 0); n != len(data) || err != nil {
				t.Fatalf("read all: %d, %v", n, err)
			}
		})
	}
}

func TestNewWriterChecksItsExtent(t *testing.T) {
	r := newRig(t, nil, diskFor(100*blockSize))
	c := r.config(100 * blockSize)
	c.Extent.Blocks = 100 // no room for checksums
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewWriter(c)
}
