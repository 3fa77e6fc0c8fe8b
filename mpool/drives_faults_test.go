package mpool

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
)

// Allocations go where there is room and little to do; a class is full when all
// its drives are.
func TestAllocationSpreads(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 3, 2)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		count := make(map[uint16]int)
		var all []api.Mblock
		for _, class := range []api.Class{api.ClassCapacity, api.ClassStaging} {
			for {
				b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1, Class: class})
				if err != nil {
					r.want(api.ENOSPC, err)
					var e *api.Error
					if !errors.As(err, &e) || e.Have != 0 || e.Longest != 0 || e.Want != 64<<10 {
						t.Errorf("%+v", e)
					}
					break
				}
				all = append(all, b)
				count[b.(*Mblock).obj.drive.entry.Slot]++
				if n := len(all); n == 60 && (count[0] < 15 || count[1] < 15 || count[2] < 15) {
					t.Errorf("of %d objects the drives have %v", n, count)
				}
			}
		}
		if count[3] != count[4] || count[1] != count[2] || count[0] >= count[1] {
			t.Errorf("full drives have %v", count)
		}
		// With fallback a full class is no end.
		r.ok(all[0].Abort(bg))
		b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1, Class: api.ClassStaging, Fallback: true})
		r.ok(err)
		if info, err := b.Info(bg); err != nil || info.Class != api.ClassCapacity {
			t.Errorf("fallback: %+v, %v", info, err)
		}
		_, err = p.AllocMblock(bg, api.AllocOptions{Capacity: 1, Class: api.ClassStaging, Fallback: true})
		r.want(api.ENOSPC, err)
		r.ok(p.Abandon(bg))
	})
	// A drive whose longest run is too short is passed over.
	r = newRackRig(t, 2, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		longest := int64(p.drives[0].zones.Longest()) * 64 << 10
		if l1 := int64(p.drives[1].zones.Longest()) * 64 << 10; l1 <= longest {
			t.Fatal("the drive without metadata is not the larger one")
		}
		for range 2 {
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 5 * mib})
			r.ok(err)
			r.ok(l.Commit(bg))
		}
		_, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 8 * mib})
		r.ok(err)
		_, err = p.AllocMlog(bg, api.AllocOptions{Capacity: 8 * mib})
		r.want(api.ENOSPC, err)
		_, err = p.AllocMblock(bg, api.AllocOptions{Class: api.ClassStaging})
		r.want(api.ENOENT, err)
		_, err = p.AllocMblock(bg, api.AllocOptions{Class: api.ClassStaging, Fallback: true})
		r.ok(err)
		r.ok(p.Abandon(bg))
	})
}

// Both logs of a container lie on one drive, whatever is free where.
func TestContainerLiesOnOneDrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 2)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		drives := make(map[uint16]int)
		for {
			id, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 3 * mib, Class: api.ClassStaging})
			if err != nil {
				r.want(api.ENOSPC, err)
				break
			}
			pair, err := p.findPair("test", id)
			r.ok(err)
			if pair[0].drive != pair[1].drive {
				t.Fatal("a container lies on two drives")
			}
			drives[pair[0].drive.entry.Slot]++
			pair[0].unref()
			pair[1].unref()
		}
		if drives[2] != 2 || drives[3] != 2 {
			t.Errorf("containers lie on the drives %v", drives)
		}
		exact(t, p)
		r.ok(p.Close())
	})
}

// proves S40: what one drive fails is that drive's alone; new objects avoid it,
// and it is said once.
func TestFailedDrive(t *testing.T) {
	for _, what := range []bdev.OpCode{bdev.OpWrite, bdev.OpFlush} {
		for seed := range uint64(10) {
			r := newRackRig(t, seed, 16*mib, 2, 1)
			r.run(func() {
				r.create(api.CreateOptions{})
				p := r.activate()
				kept := r.putOn(p, 1, fill(5000))
				bad, badLog := r.onDrive(p, 1)
				good, goodLog := r.onDrive(p, 0)
				r.disks[1].Inject(devsim.Fault{Code: what, Err: syscall.EIO, Count: 2})
				_, err := badLog.Append(bg, []byte("record"), true)
				r.want(api.EUNKNOWN, err)
				_, werr := bad.Write(bg, fill(4096))
				err = errors.Join(werr, bad.Commit(bg))
				r.want(api.EIO, err)
				_, err = badLog.Append(bg, []byte("record"), true)
				r.want(api.EIO, err)
				r.disks[1].Heal()
				_, err = read(p, kept, 5000)
				r.ok(err)
				_, err = goodLog.Append(bg, []byte("record"), true)
				r.ok(err)
				_, err = good.Write(bg, fill(4096))
				r.ok(err)
				r.ok(good.Commit(bg))
				for range 20 {
					b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1})
					r.ok(err)
					if b.(*Mblock).obj.drive.entry.Slot != 0 {
						t.Fatal("a new object lies on the drive that failed")
					}
				}
				info, err := p.Info(bg)
				r.ok(err)
				if info.State != "active" || info.Health != "degraded" || info.Drives[1].State != "failed" || info.Drives[0].State != "online" {
					t.Errorf("%+v", info)
				}
				r.told(EventDriveFailed, 1)
				r.told(EventPoisoned, 2)
				r.told(EventReadOnly, 0)
				r.ok(bad.Abort(bg))
				// When only it has room, it serves.
				l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 10 * mib})
				for range 2 {
					if err == nil && l.(*Mlog).obj.drive.entry.Slot == 0 {
						l, err = p.AllocMlog(bg, api.AllocOptions{Capacity: 10 * mib})
					}
				}
				r.ok(err)
				if l.(*Mlog).obj.drive.entry.Slot != 1 {
					t.Error("the drive that failed is not used when it must be")
				}
				r.ok(p.Abandon(bg))
				r.ok(r.activate().Close())
			})
		}
	}
}

// onDrive returns an uncommitted mblock and an open log that lie on a drive.
func (r *rackRig) onDrive(p *Pool, slot uint16) (api.Mblock, api.Appender) {
	r.t.Helper()
	class := api.Class(p.byslot[slot].entry.Class)
	var b api.Mblock
	var a api.Appender
	for range 100 {
		if b == nil {
			x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 4096, Class: class})
			r.ok(err)
			if b = x; x.(*Mblock).obj.drive.entry.Slot != slot {
				b = nil
			}
		}
		if a == nil {
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000, Class: class})
			r.ok(err)
			if l.(*Mlog).obj.drive.entry.Slot == slot {
				r.ok(l.Commit(bg))
				a, err = l.OpenAppend(bg)
				r.ok(err)
			}
		}
		if a != nil && b != nil {
			return b, a
		}
	}
	r.t.Fatalf("nothing lands on drive %d", slot)
	return nil, nil
}

// told wants so many events of a type.
func (r *rackRig) told(what EventType, want int) {
	r.t.Helper()
	r.ok(r.s.Sleep(bg, time.Millisecond))
	n := 0
	for _, e := range r.events {
		if e.Type == what {
			n++
			if e.Err == nil || e.Device == "" {
				r.t.Errorf("event without a place or reason: %+v", e)
			}
		}
	}
	if n != want {
		r.t.Errorf("%d events of type %d, want %d: %+v", n, what, want, r.events)
	}
}

// A drive that fails its superblock does not undo a rename, nor an activation.
func TestFailingSecondDrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 1)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.putOn(p, 1, fill(5000))
		r.disks[2].Inject(devsim.Fault{Code: bdev.OpWrite, Err: syscall.EIO})
		r.ok(p.Rename(bg, "q"))
		r.ok(r.s.Sleep(bg, time.Second))
		info, err := p.Info(bg)
		r.ok(err)
		if info.Name != "q" || info.Health != "degraded" || info.Drives[2].State != "failed" {
			t.Errorf("%+v", info)
		}
		r.ok(p.Close())
		p, err = Activate(bg, "q", r.paths(), api.ActivateOptions{}, r.options())
		r.ok(err)
		if info, err = p.Info(bg); err != nil || info.Drives[2].State != "failed" || info.State != "active" {
			t.Errorf("%+v, %v", info, err)
		}
		_, err = read(p, id, 5000)
		r.ok(err)
		err = p.Destroy(bg)
		r.want(api.EIO, err)
		if !strings.Contains(err.Error(), "s0") {
			t.Error(err)
		}
		r.disks[2].Heal()
		_, err = Activate(bg, "q", r.paths(), api.ActivateOptions{}, r.options())
		if c := api.CodeOf(err); c != api.ENOENT && c != api.ESTATE {
			t.Errorf("a destroyed pool: %v", err)
		}
	})
}

// proves G8: a background step that is not admitted is put off, and is done later; the
// pool stays writable, and can be deactivated meanwhile. What was admitted says so when it
// has ended, and not before.
func TestRefusedStepsArePutOff(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.meta = 64 << 10
	refuse := true
	var p *Pool
	under, least := 0, int64(0) // steps; bytes of the metadata log when one ended
	r.admit = func(context.Context, Priority) (func(), error) {
		if refuse {
			return nil, errors.New("not now")
		}
		under++
		return func() {
			under--
			used, _ := p.meta.mdc.Usage()
			least = min(least, used)
		}, nil
	}
	r.run(func() {
		r.create(api.CreateOptions{})
		p = r.activate()
		for range 100 {
			r.ok(r.remove(p, r.put(p, 1)))
		}
		full, _ := p.meta.mdc.Usage()
		least = full
		p.meta.mu.Lock()
		p.meta.compactLocked()
		p.meta.mu.Unlock()
		r.ok(r.s.Sleep(bg, time.Minute))
		info, err := p.Info(bg)
		r.ok(err)
		if info.State != "active" || info.Space.Draining == 0 {
			t.Errorf("while steps are refused: %+v", info)
		}
		refuse = false
		r.ok(r.s.Sleep(bg, 2*refusedMost))
		p.meta.mu.Lock()
		if p.meta.compactions == 0 {
			t.Error("a compaction that was put off is not done later")
		}
		p.meta.mu.Unlock()
		if info, err = p.Info(bg); err != nil || info.Space.Draining != 0 {
			t.Errorf("afterwards: %+v, %v", info, err)
		}
		_, err = p.Scrub(bg, api.ScrubCursor{}, 1<<20)
		r.ok(err)
		if under != 0 || least > full/2 {
			t.Errorf("%d steps have not ended; the log had %d bytes before and %d when a step ended", under, full, least)
		}
		refuse = true
		r.ok(r.remove(p, r.put(p, 1)))
		p.meta.mu.Lock()
		p.meta.compactLocked()
		p.meta.mu.Unlock()
		start := r.s.Now()
		r.ok(p.Close())
		if d := r.s.Now().Sub(start); d > time.Second {
			t.Errorf("closing took %v", d)
		}
		r.ok(r.activate().Close())
	})
}

// proves S14: corruption that a read finds is told, with its place.
func TestEventsTell(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.putOn(p, 1, fill(5000))
		o, _ := p.table.Lookup(id)
		r.disks[1].FlipBit(o.Extent.Offset()+4096, 3)
		_, err := read(p, id, 5000)
		r.want(api.ECORRUPT, err)
		r.told(EventCorruption, 1)
		e := r.events[0]
		if e.Object != id || e.Device != "a1" || e.Offset != o.Extent.Offset()+4096 {
			t.Errorf("%+v", e)
		}
		from, to := metaRange(p)
		r.disks[0].Inject(devsim.Fault{Code: bdev.OpWrite, From: from, To: to, Err: syscall.EIO})
		r.want(api.EUNKNOWN, p.SetRoots(bg, []api.Root{{Name: "x", ID: id}}))
		r.want(api.EROFS, p.SetRoots(bg, []api.Root{{Name: "x", ID: id}}))
		r.told(EventReadOnly, 1)
		r.told(EventDriveFailed, 1)
		info, err := p.Info(bg)
		r.ok(err)
		if info.State != "read-only" || info.Health != "faulted" {
			t.Errorf("%+v", info)
		}
		r.ok(p.Abandon(bg))
	})
}

// The property shared is kept, also through a compaction, and off by default.
func TestShared(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 1, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for i, want := range []bool{false, true, false} {
			if i > 0 {
				r.ok(p.Set(bg, api.PoolSettings{Shared: &want}))
				r.compactMetadata(p)
			}
			r.ok(p.Close())
			p = r.activate()
			if info, err := p.Info(bg); err != nil || p.Shared() != want || info.Shared != want {
				t.Errorf("shared is %v, want %v: %v", p.Shared(), want, err)
			}
		}
		r.ok(p.Close())
	})
}

// proves S46: a creation that its time ends says whether there is a pool.
func TestCreationWithADeadline(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race")
	}
	codes := make(map[api.Code]int)
	for seed := range uint64(150) {
		r := newRackRig(t, seed, 12*mib, 2, 1)
		r.meta = 64 << 10
		r.run(func() {
			ctx, cancel := r.s.WithTimeout(bg, time.Duration(seed)*180*time.Microsecond)
			defer cancel()
			_, err := Create(ctx, "p", r.capacity, api.CreateOptions{Staging: r.staging}, r.options())
			r.ok(r.s.Sleep(bg, time.Minute)) // what is under way ends
			codes[api.CodeOf(err)]++
			p, aerr := r.activateOn(r.paths(), api.ActivateOptions{})
			if aerr == nil {
				r.ok(p.Close())
			}
			switch code := api.CodeOf(err); {
			case err == nil && aerr != nil:
				t.Errorf("seed %d: created, and not there: %v", seed, aerr)
			case err == nil, code == api.EUNKNOWN:
			case code != api.ETIMEDOUT || aerr == nil:
				t.Errorf("seed %d: %v, and then %v", seed, err, aerr)
			}
		})
	}
	if codes[0] == 0 || codes[api.ETIMEDOUT] == 0 || codes[api.EUNKNOWN] == 0 {
		t.Errorf("ends: %v", codes)
	}
	t.Log(codes)
}
