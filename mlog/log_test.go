package mlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

// proves S20
func TestRecordSizes(t *testing.T) {
	sizes := []int{0, 1, 2, 7, 8, 9, 100, MaxRecord}
	for _, base := range []int{PayloadSize, PayloadSize - FragmentHeader, 2 * dataPerPage, 3*dataPerPage + 100, 70 * dataPerPage} {
		for d := -FragmentHeader - 1; d <= FragmentHeader+1; d++ {
			sizes = append(sizes, base+d)
		}
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r, l := newTestLog(t, 3+BlocksFor(int64(size)))
			var want [][]byte
			for n, s := range []int{3, size, 1, 0} {
				want = append(want, record(uint64(n), s))
				if got := mustAppend(t, l, want[n]); got != uint64(n) {
					t.Fatalf("record %d has number %d", n, got)
				}
			}
			got, err := readAll(l, ReaderOptions{Unsynced: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := sameRecords(got, want); err != nil {
				t.Fatal(err)
			}
			mustSync(t, l)
			mustClose(t, l)
			checkLog(t, r, want)
		})
	}
}

// proves S20
//
// Every way in which a page can end: after each first record from 0 bytes to
// more than a page, records of every small size follow.
func TestPageEnds(t *testing.T) {
	for first := PayloadSize - 3*FragmentHeader; first <= PayloadSize; first++ {
		for second := range 12 {
			r, l := newTestLog(t, 8)
			var want [][]byte
			for n, s := range []int{first, second, 0, 0, 5, first, second} {
				want = append(want, record(uint64(n), s))
				mustAppend(t, l, want[n])
				if (first+n)%3 == 0 {
					mustSync(t, l)
				}
			}
			mustClose(t, l)
			checkLog(t, r, want)
		}
	}
}

// proves S20, S24
//
// Random records until the log is full, in pieces, with syncs, reopened now and
// then; readers of all kinds follow.
func TestRandomFill(t *testing.T) {
	for seed := range seeds(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			r, l := newTestLog(t, 1+rng.Uint32N(60))
			reader := l.NewReader(ReaderOptions{})
			live := l.NewReader(ReaderOptions{Unsynced: true})
			var want [][]byte
			synced := 0
			for {
				size := rng.IntN(200)
				if rng.IntN(8) == 0 {
					size = rng.IntN(5 * PageSize)
				}
				b := record(uint64(len(want)), size)
				cut := rng.IntN(size + 1)
				fits := l.FreeFor(int64(size))
				used := l.Used()
				_, err := l.Append(bg, b[:cut], nil, b[cut:])
				if fits != (err == nil) {
					t.Fatalf("FreeFor(%d) = %v, Append: %v", size, fits, err)
				}
				if err != nil {
					if !errors.Is(err, api.EFBIG) || l.Used() != used {
						t.Fatal(err)
					}
					break
				}
				if took := l.Used() - used; took > Cost(int64(size)) {
					t.Fatalf("record of %d bytes took %d, Cost is %d", size, took, Cost(int64(size)))
				}
				want = append(want, b)
				switch rng.IntN(20) {
				case 0, 1, 2:
					mustSync(t, l)
					synced = len(want)
				case 3:
					if err := l.SyncTo(bg, uint64(len(want))); err != nil {
						t.Fatal(err)
					}
					synced = len(want)
				case 4:
					reader.Close()
					live.Close()
					mustClose(t, l)
					l = r.open(t)
					synced = len(want)
					reader = l.NewReader(ReaderOptions{})
					live = l.NewReader(ReaderOptions{Unsynced: true})
				}
				if n, _ := l.Durable(); n < uint64(synced) || n > uint64(len(want)) {
					t.Fatalf("%d durable of %d, synced %d", n, len(want), synced)
				}
				for live.Record() < uint64(len(want)) && rng.IntN(4) > 0 {
					checkNext(t, live, want)
				}
				for reader.Record() < uint64(synced) && rng.IntN(4) > 0 {
					checkNext(t, reader, want)
				}
				if rng.IntN(10) == 0 {
					n := rng.Uint64N(uint64(synced) + 1)
					if err := reader.Seek(bg, n); err != nil {
						t.Fatalf("Seek(%d): %v", n, err)
					}
					if m := rng.Uint64N(uint64(len(want)) + 1); live.Seek(bg, m) != nil {
						t.Fatalf("Seek(%d)", m)
					}
				}
				if err := live.Seek(bg, uint64(len(want))+1); !errors.Is(err, api.ENOENT) {
					t.Fatal(err)
				}
			}
			reader.Close()
			live.Close()
			mustClose(t, l)
			checkLog(t, r, want)
		})
	}
}

func checkNext(t *testing.T, r *Reader, want [][]byte) {
	t.Helper()
	n := r.Record()
	b, err := r.View(bg)
	if err != nil {
		t.Fatalf("record %d: %v", n, err)
	}
	if !bytes.Equal(b, want[n]) {
		t.Fatalf("record %d differs: %d bytes, want %d", n, len(b), len(want[n]))
	}
	if r.Record() != n+1 {
		t.Fatalf("reader at %d after record %d", r.Record(), n)
	}
}

// proves S24
func TestOverflowLeavesTheCursor(t *testing.T) {
	_, l := newTestLog(t, 8)
	defer mustClose(t, l)
	want := record(0, 3*PageSize)
	mustAppend(t, l, want)
	mustSync(t, l)
	r := l.NewReader(ReaderOptions{})
	defer r.Close()
	for _, n := range []int{0, 1, len(want) - 1} {
		_, err := r.Next(bg, make([]byte, n))
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.EOVERFLOW || e.Want != int64(len(want)) || r.Record() != 0 {
			t.Fatalf("Next into %d bytes: %v", n, err)
		}
	}
	p := make([]byte, len(want)+1)
	if n, err := r.Next(bg, p); err != nil || !bytes.Equal(p[:n], want) {
		t.Fatalf("Next = %d, %v", n, err)
	}
	if _, err := r.Next(bg, p); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// proves S24
func TestFullLogTakesNothing(t *testing.T) {
	for _, capacity := range []int64{0, 1, 100, PayloadSize - FragmentHeader, PayloadSize, 3 * PageSize, 1 << 20} {
		blocks := BlocksFor(capacity)
		r, l := newTestLog(t, blocks-SlotPages)
		if n := l.Usable0(); n != Usable(blocks) {
			t.Fatal(n)
		}
		want := [][]byte{record(0, int(capacity))}
		mustAppend(t, l, want[0])
		for size := PayloadSize; size >= 0; size-- {
			b := record(1, size)
			if _, err := l.Append(bg, b); err == nil {
				want = append(want, b)
				break
			} else if !errors.Is(err, api.EFBIG) {
				t.Fatal(err)
			}
		}
		for {
			if _, err := l.Append(bg); err != nil {
				break
			}
			want = append(want, nil)
		}
		mustClose(t, l)
		checkLog(t, r, want)
	}
	_, l := newTestLog(t, BlocksFor(MaxRecord)+10)
	defer mustClose(t, l)
	if _, err := l.Append(bg, make([]byte, MaxRecord), []byte{1}); !errors.Is(err, api.EINVAL) {
		t.Fatal(err)
	}
}

func (l *Log) Usable0() int64 { return l.Used() + l.Free() }

// proves S40
func TestFailurePoisons(t *testing.T) {
	for _, code := range []bdev.OpCode{bdev.OpWrite, bdev.OpFlush} {
		t.Run(code.String(), func(t *testing.T) {
			r, l := newTestLog(t, 100)
			var told error
			l.c.OnFailure = func(err error) { told = err }
			mustAppend(t, l, record(0, 100))
			mustSync(t, l)
			r.disk.Inject(sim.Fault{Code: code, Count: 1, Err: syscall.EIO})
			mustAppend(t, l, record(1, 100))
			if err := l.Sync(bg); !errors.Is(err, api.EUNKNOWN) {
				t.Fatalf("Sync of the failed group: %v", err)
			}
			if told == nil {
				t.Fatal("OnFailure was not called")
			}
			if _, err := l.Append(bg, record(2, 100)); !errors.Is(err, api.EIO) {
				t.Fatalf("Append: %v", err)
			}
			if err := l.Sync(bg); !errors.Is(err, api.EUNKNOWN) {
				t.Fatalf("Sync again: %v", err)
			}
			if err := l.SyncTo(bg, 1); err != nil {
				t.Fatalf("SyncTo of what is durable: %v", err)
			}
			if got, err := readAll(l, ReaderOptions{}); err != nil || len(got) != 1 {
				t.Fatalf("read: %d, %v", len(got), err)
			}
			if got, err := readAll(l, ReaderOptions{Unsynced: true}); err != nil || len(got) != 2 {
				t.Fatalf("read unsynced: %d, %v", len(got), err)
			}
			if err := l.Close(bg); !errors.Is(err, api.EUNKNOWN) {
				t.Fatalf("Close: %v", err)
			}
			if _, err := l.Append(bg, nil); !errors.Is(err, api.EBADF) {
				t.Fatalf("Append after Close: %v", err)
			}
			if got := r.drive.InFlight(); got != 0 {
				t.Fatalf("%d operations in flight", got)
			}
		})
	}
}

// A context that has ended takes nothing and waits for nothing.
func TestContexts(t *testing.T) {
	_, l := newTestLog(t, 4000)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if n, err := l.Append(ctx, record(0, 10)); n != 0 || err != nil {
		t.Fatal(n, err) // buffered: there was nothing to wait for
	}
	mustSync(t, l)
	mustClose(t, l)
	if err := l.Close(bg); !errors.Is(err, api.EBADF) {
		t.Fatal(err)
	}
}
