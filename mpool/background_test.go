package mpool

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// stalled runs f with a context of 100 ms while the disk holds up what matches
// for a second, and wants one of the codes.
func (r *rig) stalled(fault devsim.Fault, f func(ctx context.Context) error, codes ...api.Code) {
	r.t.Helper()
	fault.Delay = time.Second
	r.disk.Inject(fault)
	ctx, cancel := r.s.WithTimeout(bg, 100*time.Millisecond)
	start := r.s.Now()
	err := f(ctx)
	cancel()
	r.disk.Heal()
	if d := r.s.Now().Sub(start); d > 101*time.Millisecond {
		r.t.Errorf("it ended after %v", d)
	}
	for _, c := range codes {
		if api.CodeOf(err) == c {
			return
		}
	}
	r.t.Fatalf("error %v; want one of %v", err, codes)
}

// proves S46 S7: the format of a log that its context left behind never lands in
// what the extent holds next, nor in the log when it is formatted again.
func TestFormatLeftBehind(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000})
			r.ok(err)
			r.stalled(devsim.Fault{Code: bdev.OpWrite}, l.Commit, api.ETIMEDOUT)
			if seed%2 == 0 {
				r.ok(l.Abort(bg))
				b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 50000})
				r.ok(err)
				_, err = b.Write(bg, fill(50000))
				r.ok(err)
				r.ok(b.Commit(bg))
				r.ok(r.s.Sleep(bg, 2*time.Second))
				_, err = b.ReadAt(make([]byte, 50000), 0)
				r.ok(err)
				r.ok(b.Put())
			} else {
				r.ok(l.Commit(bg))
				a, err := l.OpenAppend(bg)
				r.ok(err)
				for range 5 {
					_, err = a.Append(bg, []byte("record"), true)
					r.ok(err)
				}
				r.ok(r.s.Sleep(bg, 2*time.Second))
				r.ok(a.Close(bg))
				reader, err := l.OpenRead(bg)
				r.ok(err)
				for range 5 {
					_, err = reader.Next(bg, make([]byte, 10))
					r.ok(err)
				}
				r.ok(reader.Close())
				r.ok(l.Put())
			}
			exact(t, p)
			r.ok(p.Close())
		})
	}
}

// proves S22 S24 S46: nothing is acknowledged by a log whose erase may still
// come through.
func TestEraseLeftBehind(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000})
			r.ok(err)
			r.ok(l.Commit(bg))
			from, to := metaRange(p)
			r.stalled(devsim.Fault{Code: bdev.OpWrite, From: from, To: to},
				func(ctx context.Context) error { return l.Erase(ctx, 0) }, api.EUNKNOWN)
			a, err := l.OpenAppend(bg)
			r.ok(err)
			_, err = a.Append(bg, []byte("record"), true)
			r.ok(err)
			r.ok(r.s.Sleep(bg, 2*time.Second))
			r.ok(a.Close(bg))
			r.ok(l.Put())
			r.ok(p.Close())
			p = r.activate()
			l, err = p.Mlog(bg, l.ID())
			r.ok(err)
			reader, err := l.OpenRead(bg)
			r.ok(err)
			_, err = reader.Next(bg, make([]byte, 10))
			r.ok(err)
			r.ok(reader.Close())
			r.ok(l.Put())
			r.ok(p.Close())
		})
	}
}

// proves S30 S46: a log whose close was left behind is closed, and neither a
// second open nor a delete comes before it is.
func TestCloseLeftBehind(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000})
			r.ok(err)
			r.ok(l.Commit(bg))
			a, err := l.OpenAppend(bg)
			r.ok(err)
			_, err = a.Append(bg, []byte("record"), false)
			r.ok(err)
			r.stalled(devsim.Fault{Code: bdev.OpWrite}, a.Close, api.EUNKNOWN)
			switch seed % 3 {
			case 0:
				r.want(api.EBUSY, l.Delete(bg))
			case 1:
				a, err = l.OpenAppend(bg)
				r.ok(err)
				if n, _ := a.Len(); n != 1 {
					t.Errorf("%d records", n)
				}
				r.ok(a.Close(bg))
			}
			r.ok(l.Put())
			r.ok(p.Close())
			p = r.activate()
			exact(t, p)
			r.ok(p.Close())
		})
	}
}

// proves S30: a container whose creation is unknown leaves no references.
func TestCreateContainerUnknown(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		r.put(p, 1) // there are ids
		from, to := metaRange(p)
		r.stalled(devsim.Fault{Code: bdev.OpWrite, From: from, To: to}, func(ctx context.Context) error {
			_, err := p.CreateMDC(ctx, api.AllocOptions{Capacity: 30000})
			return err
		}, api.EUNKNOWN)
		r.ok(r.s.Sleep(bg, 2*time.Second))
		exact(t, p)
		p.usesMu.Lock()
		if n := len(p.uses); n != 0 {
			t.Errorf("%d objects are in use", n)
		}
		p.usesMu.Unlock()
		r.ok(p.Close())
	})
}

// proves S9: an owner whose creation is unknown keeps its index; and S27: the
// room in the metadata is counted the same before and after an activation.
func TestOwnersAndRoots(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 1)
		from, to := metaRange(p)
		r.stalled(devsim.Fault{Code: bdev.OpWrite, From: from, To: to}, func(ctx context.Context) error {
			_, err := p.AddOwner(ctx, "first", 0)
			return err
		}, api.EUNKNOWN)
		second, err := p.AddOwner(bg, "second", 0)
		r.ok(err)
		if second != 2 {
			t.Errorf("the second owner has index %d", second)
		}
		for i := range 20 {
			r.ok(p.SetRoots(bg, []api.Root{{Name: fmt.Sprint("root", i%7), ID: id}}))
		}
		r.ok(p.SetRoots(bg, []api.Root{{Name: "root1"}, {Name: "x", ID: id}, {Name: "x"}}))
		exact(t, p)
		r.ok(p.Close())
		p = r.activate()
		exact(t, p)
		r.ok(p.Close())
	})
}

// proves S46: who waits for another's transaction waits no longer than he said.
func TestTurnsEndWithContexts(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 1)
		var done sched.Completion
		done.Init(r.s)
		r.s.Go("other", func() {
			defer done.Done()
			r.ok(p.SetRoots(bg, []api.Root{{Name: "a", ID: id}}))
		})
		r.stalled(devsim.Fault{}, func(ctx context.Context) error {
			return p.SetRoots(ctx, []api.Root{{Name: "b", ID: id}})
		}, api.ETIMEDOUT, api.EUNKNOWN)
		r.stalled(devsim.Fault{}, func(ctx context.Context) error { return p.Rename(ctx, "p") }, api.EUNKNOWN)
		r.stalled(devsim.Fault{}, p.Abandon, api.EUNKNOWN, api.ETIMEDOUT)
		r.ok(done.Wait(bg))
		_ = p.Abandon(bg) // it may be done already
		p = r.activate()
		r.ok(p.Close())
	})
}

// proves S43: a read beside the abort of the same mblock gets an error.
func TestReadBesideAbort(t *testing.T) {
	for seed := range seeds(200) {
		r := newRig(t, seed, 16<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 5000})
			r.ok(err)
			var done sched.Completion
			done.Init(r.s)
			r.s.Go("reader", func() {
				defer done.Done()
				for range 3 {
					_, _ = b.ReadAt(make([]byte, 10), 0) // any error is right
				}
			})
			r.ok(b.Abort(bg))
			r.ok(done.Wait(bg))
			r.ok(p.Close())
		})
	}
}

// proves S15 S27: a delete beside a compaction is not undone by it.
func TestDeletesBesideCompactions(t *testing.T) {
	for seed := range uint64(6) {
		r := newRig(t, seed, 32<<20)
		r.meta = 64 << 10
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			var done [8]sched.Completion
			for n := range done {
				done[n].Init(r.s)
				r.s.Go("churn", func() {
					defer done[n].Done()
					for range 60 {
						r.ok(r.remove(p, r.put(p, 1)))
					}
				})
			}
			for n := range done {
				r.ok(done[n].Wait(bg))
			}
			p.meta.mu.Lock()
			compactions := p.meta.compactions
			p.meta.mu.Unlock()
			if compactions == 0 {
				t.Error("no compaction")
			}
			exact(t, p)
			r.ok(p.Close())
			p = r.activate()
			if n := p.table.Len(); n != 0 {
				t.Errorf("seed %d: %d objects are there that were deleted", seed, n)
			}
			r.ok(p.Close())
		})
	}
}

// proves S40: nothing is acknowledged by a pool that is read-only.
func TestReadOnlyPoolTakesNoAppends(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000})
		r.ok(err)
		r.ok(l.Commit(bg))
		a, err := l.OpenAppend(bg)
		r.ok(err)
		_, err = a.Append(bg, []byte("unsynced"), false)
		r.ok(err)
		p.meta.fail(api.Errorf(api.ESTALE, "pool", "activated elsewhere"))
		writes := p.drives[0].dev.Stats().Writes
		_, err = a.Append(bg, []byte("record"), true)
		r.want(api.ESTALE, err)
		r.want(api.ESTALE, a.Sync(bg))
		r.want(api.ESTALE, a.Close(bg))
		r.ok(l.Put())
		r.ok(p.Close())
		if now := p.drives[0].dev.Stats().Writes; now != writes {
			t.Errorf("%d writes by who has lost the drive", now-writes)
		}
	})
}
