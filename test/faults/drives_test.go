package faults

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/test/faultfs"
)

// spread puts objects until each drive of the pool has some, and returns one on
// each drive, the metadata's first.
func (r *rig) spread(p *pool, o api.AllocOptions) []api.Mblock {
	r.t.Helper()
	on := make([]api.Mblock, len(p.drives))
	for missing := p.capacity; missing > 0; {
		m, err := p.book.put(r.ctx, p, 20_000, o)
		r.ok(err)
		i := r.driveOf(p, m)
		if on[i] != nil {
			r.ok(m.Put())
			continue
		}
		on[i] = m
		missing--
	}
	return on
}

// driveOf returns which drive holds an mblock.
func (r *rig) driveOf(p *pool, m api.Mblock) int {
	r.t.Helper()
	first := p.book.live[m.ID()][:4096]
	buf := make([]byte, 4096)
	for i, d := range p.drives {
		for off := int64(0); off < driveBytes; off += 4096 {
			if _, err := d.Disk().ReadAt(buf, off); err == nil && string(buf) == string(first) {
				return i
			}
		}
	}
	r.t.Fatalf("%v is on no drive", m.ID())
	return 0
}

// metadataDrive returns which drive of the pool a change of the metadata alone
// writes to.
func (r *rig) metadataDrive(p *pool) int {
	r.t.Helper()
	before, err := r.conn.Stat(r.ctx, p.name)
	r.ok(err)
	_, err = p.AddOwner(r.ctx, "which", 0)
	r.ok(err)
	after, err := r.conn.Stat(r.ctx, p.name)
	r.ok(err)
	for i, d := range after.Drives {
		if d.Writes > before.Drives[i].Writes {
			for k, path := range p.paths {
				if path == d.Path {
					return k
				}
			}
		}
	}
	r.t.Fatal("no drive was written to")
	return 0
}

// proves S40 S42: a drive that fails, or goes away, takes nothing with it but
// what is on it; the pool says so, and new objects avoid it.
func TestOneDriveOfTwoFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(d *faultfs.Drive)
	}{
		{"flush", func(d *faultfs.Drive) { d.Disk().Inject(sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO}) }},
		{"write", func(d *faultfs.Drive) { d.Disk().Inject(sim.Fault{Code: bdev.OpWrite, Err: syscall.EIO}) }},
		{"vanished", func(d *faultfs.Drive) { d.Disk().Vanish() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, spec{name: "a", capacity: 2, loop: true})
			p := r.pools[0]
			meta := r.metadataDrive(p)
			other := 1 - meta
			on := r.spread(p, api.AllocOptions{})
			c.do(p.drives[other])
			// Some are refused until the drive is known to have failed.
			failed := 0
			for i := 0; failed == 0 && i < 50; i++ {
				m, err := p.book.put(r.ctx, p, 20_000, api.AllocOptions{})
				if err == nil {
					r.ok(m.Put())
					continue
				}
				r.want(err, api.EIO)
				r.ok(m.Abort(r.ctx))
				failed++
			}
			if failed == 0 {
				t.Error("no object went to the failed drive")
			}
			r.goesOn(p, api.AllocOptions{})
			r.answers()
			r.ok(same(r.ctx, on[meta], p.book.live[on[meta].ID()]))
			if c.name == "vanished" {
				r.want(same(r.ctx, on[other], p.book.live[on[other].ID()]), api.EIO)
			} else {
				r.ok(same(r.ctx, on[other], p.book.live[on[other].ID()]))
			}
			info, err := p.Info(r.ctx)
			r.ok(err)
			if info.State != "active" || info.Health != "degraded" {
				t.Errorf("the pool is %s and %s", info.State, info.Health)
			}
			for _, d := range info.Drives {
				want := map[bool]string{true: "failed", false: "online"}[d.Path == p.paths[other]]
				if d.State != want {
					t.Errorf("drive %s is %s, want %s", d.Path, d.State, want)
				}
			}
			r.settle()
		})
	}
}

// proves S42: a drive of two that stalls holds up who needs it; objects on the
// other, and commits, go on.
func TestOneDriveOfTwoStalls(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 2, loop: loop})
		p := r.pools[0]
		meta := r.metadataDrive(p)
		other := 1 - meta
		on := r.spread(p, api.AllocOptions{})
		release := p.drives[other].Stall(faultfs.Stall{})
		hangs := make(chan error, 1)
		go func() { hangs <- same(r.ctx, on[other], p.book.live[on[other].ID()]) }()
		p.drives[other].Waiting(t, 1)
		for start := time.Now(); time.Since(start) < *long; time.Sleep(*long / 4) {
			r.quickly("what is on the other drive", func(ctx context.Context) error {
				return errors.Join(
					same(ctx, on[meta], p.book.live[on[meta].ID()]),
					p.SetRoots(ctx, []api.Root{{Name: "x", ID: on[meta].ID()}}))
			})
			r.answers()
		}
		r.avoids(p)
		select {
		case err := <-hangs:
			t.Errorf("a read from a stalled drive ended: %v", err)
		default:
		}
		release()
		r.ok(<-hangs)
		r.goesOn(p, api.AllocOptions{})
		r.settle()
	})
}

// avoids checks that new objects go to a drive that answers, but for the few by
// which it is found out that the other does not.
func (r *rig) avoids(p *pool) {
	r.t.Helper()
	for i := range 5 {
		ctx, cancel := context.WithTimeout(r.ctx, time.Second<<i) // longer and longer: the machine may be slow
		_, err := p.book.put(ctx, p, 20_000, api.AllocOptions{})
		cancel()
		if err == nil {
			r.goesOn(p, api.AllocOptions{})
			return
		}
		r.want(err, api.ETIMEDOUT, api.EUNKNOWN)
	}
	r.t.Error("new objects go to a drive that does not answer")
}

// proves S42: a metadata drive that stalls stops commits, and reads elsewhere go
// on; what was sent is done when it goes on.
func TestMetadataDriveStalls(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 2, loop: loop})
		p := r.pools[0]
		meta := r.metadataDrive(p)
		other := 1 - meta
		on := r.spread(p, api.AllocOptions{})
		release := p.drives[meta].Stall(faultfs.Stall{})
		hangs := make(chan error, 1)
		go func() { hangs <- p.SetRoots(r.ctx, []api.Root{{Name: "x", ID: on[other].ID()}}) }()
		p.drives[meta].Waiting(t, 1)
		late, cancel := context.WithTimeout(r.ctx, 100*time.Millisecond)
		defer cancel()
		r.want(p.SetRoots(late, []api.Root{{Name: "y", ID: on[other].ID()}}), api.ETIMEDOUT, api.EUNKNOWN)
		for start := time.Now(); time.Since(start) < *long; time.Sleep(*long / 4) {
			r.quickly("a read from the other drive", func(ctx context.Context) error {
				return same(ctx, on[other], p.book.live[on[other].ID()])
			})
			r.answers()
		}
		select {
		case err := <-hangs:
			t.Errorf("a change of the metadata ended: %v", err)
		default:
		}
		release()
		r.ok(<-hangs)
		r.goesOn(p, api.AllocOptions{})
		r.settle()
	})
}

// proves S42: staging that fails, stalls or is full leaves the capacity drives'
// objects served; an allocation falls back only when it says so.
func TestStagingFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, spec{name: "a", capacity: 1, staging: 1, loop: true})
	p := r.pools[0]
	fast, err := p.book.put(r.ctx, p, 20_000, api.AllocOptions{Class: api.ClassStaging})
	r.ok(err)
	if r.driveOf(p, fast) != 1 {
		t.Fatal("an object of class staging is not on the staging drive")
	}
	release := p.drives[1].Stall(faultfs.Stall{})
	r.goesOn(p, api.AllocOptions{})
	release()
	_, err = p.AllocMblock(r.ctx, api.AllocOptions{Class: api.ClassStaging, Capacity: driveBytes})
	r.want(err, api.ENOSPC)
	p.drives[1].Disk().Vanish()
	m, err := p.book.put(r.ctx, p, 20_000, api.AllocOptions{Class: api.ClassStaging})
	r.want(err, api.EIO)
	if m != nil {
		r.ok(m.Abort(r.ctx))
	}
	r.goesOn(p, api.AllocOptions{})
	r.goesOn(p, api.AllocOptions{Class: api.ClassStaging, Fallback: true})
	info, err := p.Info(r.ctx)
	r.ok(err)
	if info.State != "active" || info.Health != "degraded" {
		t.Errorf("the pool is %s and %s", info.State, info.Health)
	}
	r.settle()
}

// proves S40 S42: the only drive of a pool goes away: errors, at once, and no
// acknowledgement; the daemon and its other pool go on, and it ends in time.
func TestVanish(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 1, loop: loop}, spec{name: "b", capacity: 1})
		a, b := r.pools[0], r.pools[1]
		old, err := a.book.put(r.ctx, a, 20_000, api.AllocOptions{})
		r.ok(err)
		l, app, err := a.book.log(r.ctx, a, api.AllocOptions{})
		r.ok(err)
		r.ok(a.book.append(r.ctx, l.ID(), app))
		a.drives[0].Disk().Vanish()
		r.want(same(r.ctx, old, a.book.live[old.ID()]), api.EIO)
		r.want(a.book.append(r.ctx, l.ID(), app), api.EIO, api.EUNKNOWN)
		_, err = a.book.put(r.ctx, a, 20_000, api.AllocOptions{})
		r.want(err, api.EIO, api.EUNKNOWN)
		r.want(a.SetRoots(r.ctx, []api.Root{{Name: "x", ID: old.ID()}}), api.EUNKNOWN, api.EROFS)
		r.want(a.book.remove(r.ctx, old), api.EROFS)
		r.goesOn(b, api.AllocOptions{})
		r.answers()
		r.ok(r.conn.Close())
		if took, _ := r.daemon.stop(); took > stopTime {
			t.Errorf("the daemon stopped after %v", took)
		}
		r.settle()
	})
}
