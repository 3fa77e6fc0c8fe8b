package mblock

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
)

// openFile opens a new file of a size as a drive.
func openFile(tb testing.TB, size int64, kind bdev.EngineKind) *bdev.Drive {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "drive")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		tb.Fatal(err)
	}
	d, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{Engine: kind})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// Reads whose contexts have ended may still be under way.
		err := d.Close()
		for latest := time.Now().Add(3 * time.Minute); errors.Is(err, syscall.EBUSY) && time.Now().Before(latest); err = d.Close() {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			tb.Error(err)
		}
	})
	return d
}

// proves S11 S13
//
// On a real file, through each engine, with many goroutines and contexts that
// end.
func TestOnFile(t *testing.T) {
	for name, kind := range map[string]bdev.EngineKind{"io_uring": bdev.URing, "pread": bdev.Pread} {
		t.Run(name, func(t *testing.T) {
			const size = 5<<20 + 77
			c := Config{
				Drive:    openFile(t, 16<<20, kind),
				Extent:   layout.Extent{Start: 3, Blocks: BlocksFor(size)},
				ID:       layout.NewObjectID(layout.KindMblock, 1),
				Birth:    9,
				Capacity: size,
			}
			data := random(size, 4)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := NewWriter(c)
			for at := 0; at < size; {
				n := min(700<<10, size-at)
				use := ctx
				if at%(3*700<<10) == 0 {
					use = context.Background()
				}
				if _, err := w.Write(use, data[at:at+n]); err != nil {
					t.Fatal(err)
				}
				at += n
				if p := make([]byte, n); second(w.ReadAt(ctx, p, int64(at-n))) != nil || !bytes.Equal(p, data[at-n:at]) {
					t.Fatal("the uncommitted bytes differ")
				}
			}
			sealed, err := w.Seal(ctx)
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(c, object(c, sealed), NewSums(nil, 1<<20), true)
			readAll(t, r, data)
			if err := r.Verify(ctx); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for k := range uint64(4) {
				wg.Go(func() { readRandomly(t, r, data, k) })
			}
			wg.Wait()
		})
	}
}

func readRandomly(t *testing.T, r *Reader, data []byte, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		off, n := rng.IntN(len(data)), 1+rng.IntN(64<<10)
		p := alignedBytes(n, rng.IntN(2)*rng.IntN(4096))
		ctx, cancel := context.Background(), func() {}
		if rng.IntN(2) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Microsecond)
		}
		got, err := r.ReadAt(ctx, p, int64(off))
		cancel()
		switch {
		case errors.Is(err, api.ETIMEDOUT):
		case err != nil && !isEOF(err), got != min(n, len(data)-off):
			t.Errorf("read %d+%d: %d, %v", off, n, got, err)
		}
		if !bytes.Equal(p[:got], data[off:off+got]) {
			t.Errorf("read %d+%d is wrong", off, n)
		}
	}
}
