package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
)

// Every operation takes a deadline; when it passes the outcome is known, or it
// is said that it is not.
//
// proves S46
func TestDeadlines(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	ctx := context.Background()
	// Each call has an mblock of its own: what follows a write of unknown fate fails.
	var all [3]api.Mblock
	for i := range all {
		all[i] = must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	}
	var b api.Mblock
	// A pool that looks at the deadline.
	r.b.hook(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return nil
	})
	for name, f := range map[string]func(ctx context.Context) error{
		"info":   func(ctx context.Context) error { _, err := p.Info(ctx); return err },
		"alloc":  func(ctx context.Context) error { _, err := p.AllocMblock(ctx, api.AllocOptions{}); return err },
		"write":  func(ctx context.Context) error { _, err := b.Write(ctx, []byte("x")); return err },
		"read":   func(ctx context.Context) error { _, err := b.ReadAtContext(ctx, make([]byte, 1), 0); return err },
		"commit": func(ctx context.Context) error { return b.Commit(ctx) },
	} {
		b = all[0]
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		err := f(short)
		cancel()
		if !errors.Is(err, api.ETIMEDOUT) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		b = all[1]
		cancelled, giveUp := context.WithCancelCause(ctx)
		stop := time.AfterFunc(10*time.Millisecond, func() { giveUp(errWhy) })
		err = f(cancelled)
		stop.Stop()
		if !errors.Is(err, api.ECANCELED) || !errors.Is(err, errWhy) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
		giveUp(nil)
		b = all[2]
		if err := f(cancelled); err == nil {
			t.Errorf("%s, cancelled before: %v", name, err)
		}
	}
	r.b.hook(func(context.Context, string) error { return nil })
	for _, b := range all {
		if i := must[api.ObjectInfo](t)(b.Info(ctx)); i.State != api.StateUncommitted || i.Length != 0 {
			t.Errorf("what was not done is not: %+v", i)
		}
	}
}

var errWhy = errors.New("because")

// When the daemon does not say what became of a request the client says so in
// time, and what it may yet give is given back.
//
// proves S46
func TestDeadlinesDeafPool(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	ctx := context.Background()
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	d := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := d.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	// Reads and writes of one mblock that come over the ring are done in order.
	e := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	r.b.deaf(true)
	entered, hold := make(chan struct{}), make(chan struct{})
	r.b.hook(func(context.Context, string) error {
		entered <- struct{}{}
		<-hold
		return nil
	})
	cancelled, giveUp := context.WithCancel(ctx)
	calls := map[string]func(ctx context.Context) error{
		"info":   func(ctx context.Context) error { _, err := p.Info(ctx); return err },
		"alloc":  func(ctx context.Context) error { _, err := p.AllocMblock(ctx, api.AllocOptions{}); return err },
		"find":   func(ctx context.Context) error { _, err := p.Mblock(ctx, b.ID()); return err },
		"read":   func(ctx context.Context) error { _, err := e.ReadAtContext(ctx, make([]byte, 1<<20), 0); return err },
		"write":  func(ctx context.Context) error { _, err := b.Write(ctx, make([]byte, 1<<19)); return err },
		"delete": d.Delete,
	}
	var wg sync.WaitGroup
	for name, f := range calls {
		wg.Go(func() {
			code := api.ECANCELED
			if name == "write" || name == "delete" {
				code = api.EUNKNOWN
			}
			if err := f(cancelled); !errors.Is(err, code) || !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for range calls {
		<-entered
	}
	giveUp()
	wg.Wait()
	// What follows a write of unknown fate might overtake it.
	_, err := b.Write(ctx, []byte("x"))
	want(t, api.EIO, err)
	want(t, api.EIO, b.Commit(ctx))
	r.b.hook(func(context.Context, string) error { return nil })
	close(hold)
	r.eventually("what nobody waits for is given back", func(p *fakePool) bool {
		o, late := p.objects[b.ID()], p.objects[mblockID(4)] // late was aborted
		return len(p.objects) == 2 && o != nil && o.refs == 1 && late == nil
	})
	// The slots and the memory are free again.
	r.b.deaf(false)
	for range 200 {
		if _, err := b.ReadAtContext(ctx, make([]byte, 1<<19), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Abort(ctx); err != nil {
		t.Fatal(err)
	}
}
