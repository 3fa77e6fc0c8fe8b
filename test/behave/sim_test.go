package behave_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/test/behave"
)

// simulated runs each case in a simulation of its own.
type simulated struct{ seed uint64 }

type dice struct{ rng *rand.Rand }

func (d dice) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return len(p), nil
}

func (b simulated) Run(t *testing.T, f func(e *behave.Env)) {
	t.Helper()
	ctx := context.Background()
	s := sched.New(b.seed)
	disk := devsim.NewDisk(64<<20, devsim.DiskOptions{Discard: b.seed%2 == 0})
	opt := mpool.Options{
		Sched: s, Rand: dice{s.Rand()},
		Open: func(context.Context, string, bool) (*bdev.Drive, error) {
			return devsim.Open(s, disk, devsim.OpenOptions{})
		},
	}
	err := s.Run(func() {
		if _, err := mpool.Create(ctx, "p", []string{"sim"}, api.CreateOptions{}, opt); err != nil {
			t.Error(err)
			return
		}
		e := &behave.Env{T: t, Ctx: ctx, Sched: s}
		open := func() api.Pool {
			p, err := mpool.Activate(ctx, "p", []string{"sim"}, api.ActivateOptions{}, opt)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		e.Pool = open()
		e.Reopen = func() api.Pool {
			if err := e.Pool.(*mpool.Pool).Abandon(ctx); err != nil {
				t.Fatal(err)
			}
			return open()
		}
		f(e)
		if err := e.Pool.Close(); err != nil && !errors.Is(err, api.EBUSY) {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSimulated(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) { behave.Run(t, simulated{seed}) })
	}
}
