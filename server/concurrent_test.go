package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
)

// Many processes' worth of goroutines on many connections get their own answers.
func TestConcurrent(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	var wg sync.WaitGroup
	for n := range 4 {
		c := r.dial()
		p := r.open(c)
		for g := range 40 { // more than there are slots, all in all
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(n), uint64(g)))
				for range 8 {
					oneLife(ctx, t, rng, p)
				}
			})
		}
		for range 50 {
			wg.Go(func() {
				for range 20 {
					if _, err := c.Version(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	s := must[client.Stats](t)(r.dial().Stat(ctx, "data"))
	for _, o := range s.Ops {
		if o.Op == ioctl.OpMblockWrite && (o.Errors != 0 || o.Count < 4*40*8 || o.Bytes == 0) {
			t.Errorf("%+v", o)
		}
	}
}

// oneLife writes, reads back and deletes an mblock of some size.
func oneLife(ctx context.Context, t *testing.T, rng *rand.Rand, p api.Pool) {
	t.Helper()
	data := make([]byte, 1+rng.IntN(1+[]int{100, 50 << 10, 300 << 10}[rng.IntN(3)]))
	for i := 0; i < len(data); i += 1 + rng.IntN(2000) {
		data[i] = byte(rng.Uint32())
	}
	b, err := p.AllocMblock(ctx, api.AllocOptions{Capacity: int64(len(data))})
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := b.Write(ctx, data); err != nil {
		t.Error(err)
	}
	if err := b.Commit(ctx); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(data))
	if n, err := b.ReadAt(got, 0); n != len(data) || string(got) != string(data) {
		t.Errorf("%d bytes of %d, %v", n, len(data), err)
	}
	if err := b.Delete(ctx); err != nil {
		t.Error(err)
	}
}
