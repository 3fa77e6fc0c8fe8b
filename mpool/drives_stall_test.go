package mpool

import (
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

// proves S42: while one of two drives hangs, everything that does not need it
// goes on, also a deactivation that is given a time.
func TestStalledDriveHoldsUpItself(t *testing.T) {
	for seed := range uint64(20) {
		r := newRackRig(t, seed, 16*mib, 2, 0)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			there := r.putOn(p, 1, fill(5000))
			doomed := r.putOn(p, 1, fill(5000))
			here := r.putOn(p, 0, fill(5000))
			_, stuckLog := r.onDrive(p, 1)
			_, log := r.onDrive(p, 0)
			b1, _ := r.onDrive(p, 1)
			r.disks[1].Inject(devsim.Fault{Delay: time.Hour})
			r.holdUp(p, b1, stuckLog, there)

			start := r.s.Now()
			quick := func(what string) {
				t.Helper()
				if d := r.s.Now().Sub(start); d > 300*time.Millisecond {
					t.Errorf("seed %d: %s took %v", seed, what, d)
				}
				start = r.s.Now()
			}
			for range 20 {
				_, err := log.Append(bg, []byte("record"), true)
				r.ok(err)
				id := r.put(p, 5000)
				_, err = read(p, id, 5000)
				r.ok(err)
				r.ok(r.remove(p, id))
			}
			quick("work on the other drive")
			_, err := read(p, here, 5000)
			r.ok(err)
			r.ok(p.SetRoots(bg, []api.Root{{Name: "x", ID: there}}))
			r.ok(p.Rename(bg, "q"))
			_, err = p.CreateMDC(bg, api.AllocOptions{Capacity: 40000})
			r.ok(err)
			r.ok(r.remove(p, doomed))
			_, err = p.Info(bg)
			r.ok(err)
			for _, err := range p.Objects(bg, api.Filter{}) {
				r.ok(err)
			}
			quick("metadata, listing, deletes")
			r.compactMetadata(p)
			start = r.s.Now()
			ctx, cancel := r.s.WithTimeout(bg, time.Second)
			defer cancel()
			r.want(api.EUNKNOWN, p.Abandon(ctx))
			if d := r.s.Now().Sub(start); d > 1100*time.Millisecond {
				t.Errorf("Abandon ended after %v", d)
			}
			if d := p.drives[0].dev.InFlight(); d != 0 {
				t.Errorf("%d operations are under way on the other drive", d)
			}
			if _, err := devsim.Open(r.s, r.disks[0], devsim.OpenOptions{ReadOnly: true}); err != nil {
				t.Errorf("the other drive is not closed: %v", err)
			}
		})
	}
}

// holdUp starts a write, an append and a read on a drive that hangs, and lets
// half a second pass.
func (r *rackRig) holdUp(p *Pool, b api.Mblock, log api.Appender, id layout.ObjectID) {
	r.s.Go("held up", func() { _, _ = b.Write(bg, fill(4096)) })
	r.s.Go("held up", func() { _, _ = log.Append(bg, []byte("x"), true) })
	r.s.Go("held up", func() { _, _ = read(p, id, 5000) })
	for range 3 {
		r.ok(r.s.Sleep(bg, stuckAfter))
		p.choices(nil, api.ClassCapacity)
	}
}

// compactMetadata has the metadata compacted.
func (r *rackRig) compactMetadata(p *Pool) {
	r.t.Helper()
	p.meta.mu.Lock()
	before := p.meta.compactions
	p.meta.compactLocked()
	p.meta.mu.Unlock()
	ctx, cancel := r.s.WithTimeout(bg, time.Second)
	defer cancel()
	r.ok(p.meta.compacted(ctx, "test", before))
}

// proves S42: a metadata drive that hangs stops commits, never reads elsewhere.
func TestStalledMetadataDrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 1)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.putOn(p, 1, fill(5000))
		b, log := r.onDrive(p, 1)
		r.disks[0].Inject(devsim.Fault{Delay: 10 * time.Second})
		ctx, cancel := r.s.WithTimeout(bg, time.Second)
		defer cancel()
		_, err := b.Write(bg, fill(4096))
		r.ok(err)
		r.want(api.EUNKNOWN, b.Commit(ctx))
		start := r.s.Now()
		_, err = read(p, id, 5000)
		r.ok(err)
		_, err = log.Append(bg, []byte("record"), true)
		r.ok(err)
		_, err = p.Info(bg)
		r.ok(err)
		if d := r.s.Now().Sub(start); d > 100*time.Millisecond {
			t.Errorf("what needs no metadata took %v", d)
		}
		r.disks[0].Heal()
		r.ok(r.s.Sleep(bg, 30*time.Second))
		r.ok(p.SetRoots(bg, []api.Root{{Name: "x", ID: id}}))
		r.ok(log.Close(bg))
		r.ok(p.Abandon(bg))
	})
}
