package bdev_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev"
)

// A wake ends a wait for many operations of which none ends, however many bells
// that takes; and when they end, each is reaped.
//
// proves S42
func TestWakeEndsReapOfMany(t *testing.T) {
	for _, kind := range engines {
		t.Run(kind.String(), func(t *testing.T) {
			const count = 24
			path, freeze, thaw := frozenFile(t)
			d := open(t, path, bdev.OpenOptions{Engine: kind})
			defer closeDrive(t, d)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			q, err := bdev.NewQueue(nil, bdev.QueueOptions{Depth: count, Engine: kind})
			if err != nil {
				t.Fatal(err)
			}
			p := bdev.AllocBuffer(count * 4096)
			defer bdev.FreeBuffer(p)
			freeze()
			for i := range count {
				q.Put(&bdev.Op{Drive: d, Code: bdev.OpWrite, Offset: int64(i) * 4096, Buf: p[i*4096:][:4096]})
			}
			for i := range 40 {
				early := i%2 == 0 // the wake comes before, or probably during the wait
				if early {
					q.(bdev.Waker).Wake()
				} else {
					go func() {
						time.Sleep(time.Millisecond)
						q.(bdev.Waker).Wake()
					}()
				}
				if n, err := q.Reap(1 + i/2); n != 0 || err != nil {
					t.Fatalf("reap of a frozen drive: %d, %v", n, err)
				}
			}
			thaw()
			ended := 0
			for q.InFlight() > 0 {
				n, err := q.Reap(count)
				if err != nil {
					t.Fatal(err)
				}
				ended += n
			}
			if ended != count {
				t.Errorf("%d operations were reaped, want %d", ended, count)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
