package server

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/scope"
)

// flood is a session whose writes hang until they are let go, one for each value.
type flood struct {
	*raw
	target ioctl.Handle
	let    chan struct{}
	under  atomic.Int64 // that have begun, and not ended
	n      uint64
}

func newFlood(r *rig) *flood {
	f := &flood{raw: r.raw(), let: make(chan struct{})}
	f.target = f.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: f.openPool(), Options: api.AllocOptions{Capacity: 1 << 20}})
	r.b.hook(func(ctx context.Context, what string) error {
		if what != "mblock write" {
			return nil
		}
		f.under.Add(1)
		defer f.under.Add(-1)
		select {
		case <-f.let:
		case <-ctx.Done():
		}
		return nil
	})
	return f
}

// write asks for writes whose answers are not waited for.
func (f *flood) write(n int) {
	for range n {
		f.n++
		f.send(ioctl.Header{Op: ioctl.OpMblockWrite, Tag: 5000 + f.n}, &ioctl.MblockWrite{Mblock: f.target, Data: ioctl.InlinePayload([]byte("x"))})
	}
}

// hanging waits until so many writes hang.
func (f *flood) hanging(n int64) {
	f.t.Helper()
	for end := time.Now().Add(inVain); f.under.Load() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%d writes hang, want %d", f.under.Load(), n)
		}
	}
}

// proves G8: a commit and a synced append wait for none of the reads and writes that fill
// all places there are for such, of the same session or of others, nor for steps in the
// background.
func TestCommitPassesBulk(t *testing.T) {
	r, _ := newScopeRig(t, nil)
	r.srv.fair.mu.Lock()
	r.srv.fair.lanes[bulk].slice, r.srv.fair.lanes[background].slice = time.Hour, time.Hour // no place is lent
	places := int64(r.srv.fair.lanes[bulk].places)
	r.srv.fair.mu.Unlock()
	f := newFlood(r)
	pool := f.openPool()
	others := r.raw()
	for range 8 {
		done, err := r.pool().watch.Admit(t.Context(), mpool.PriorityLow)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
	}
	f.write(DefaultLimits().Requests - 8)
	f.hanging(places)
	for _, w := range []struct {
		*raw
		pool ioctl.Handle
	}{{f.raw, pool}, {others, others.openPool()}} {
		for range 3 {
			l := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 1 << 20}})
			w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
			a := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
			w.ok(ioctl.OpAppend, &ioctl.AppendRecord{To: a, Sync: true, Data: ioctl.InlinePayload([]byte("x"))})
		}
	}
	f.hanging(places)
	close(f.let)
}

// proves G8: where requests have taken all tasks that a limit lets there be, a step in the
// background begins with the first that one of them gives back, whatever comes meanwhile; while
// it works it is the requests that are refused.
func TestStepsDoNotStarve(t *testing.T) {
	const most = 4
	r, s := newScopeRig(t, scope.Layer{"system": {scope.Tasks: scope.Fixed(most)}})
	f := newFlood(r)
	tasksOver(t, s)
	f.write(most)
	f.hanging(most)
	began := make(chan func(), 1)
	go func() {
		done, err := r.pool().watch.Admit(context.Background(), mpool.PriorityLow)
		if err != nil {
			t.Error(err)
		}
		began <- done
	}()
	for end := time.Now().Add(inVain); !s.Waiting(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not wait")
		}
	}
	f.let <- struct{}{}
	if h, _, err := f.recv(); err != nil || h.Tag < 5000 {
		t.Fatalf("%+v, %v", h, err)
	}
	var done func()
	select {
	case done = <-began:
	case <-time.After(inVain):
		t.Fatal("a write has ended, and the step has not begun")
	}
	f.hanging(most - 1)
	_, err := f.ask(ioctl.OpVersion, &ioctl.Empty{})
	want(t, api.EAGAIN, err)
	done()
	f.ok(ioctl.OpVersion, &ioctl.Empty{})
	close(f.let)
}
