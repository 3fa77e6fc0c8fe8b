package faults

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/test/faultfs"
)

// places runs a scenario on a bare file and under a loop device.
func places(t *testing.T, f func(t *testing.T, loop bool)) {
	t.Helper()
	for _, loop := range []bool{false, true} {
		t.Run(fmt.Sprintf("loop=%v", loop), func(t *testing.T) {
			t.Parallel()
			f(t, loop)
		})
	}
}

// find returns where on a drive a block of 4096 bytes lies.
func find(t *testing.T, d *faultfs.Drive, block []byte) int64 {
	t.Helper()
	buf := make([]byte, 4096)
	for off := int64(0); off < driveBytes; off += 4096 {
		if _, err := d.Disk().ReadAt(buf, off); err == nil && bytes.Equal(buf, block) {
			return off
		}
	}
	t.Fatal("the block is nowhere on the drive")
	return 0
}

// proves S40: a read error is that object's alone, and names the place.
func TestReadError(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 1, loop: loop})
		p := r.pools[0]
		good, err := p.book.put(r.ctx, p, 100_000, api.AllocOptions{})
		r.ok(err)
		bad, err := p.book.put(r.ctx, p, 100_000, api.AllocOptions{})
		r.ok(err)
		data := p.book.live[bad.ID()]
		at := find(t, p.drives[0], data[4096:8192])
		p.drives[0].Disk().Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + 4096, Err: syscall.EIO})
		for range 3 {
			err := same(r.ctx, bad, data)
			r.want(err, api.EIO)
			var e *api.Error
			if !errors.As(err, &e) || e.Object != bad.ID() || e.Device != p.paths[0] {
				t.Errorf("%v does not say which object and drive", err)
			}
			r.ok(same(r.ctx, good, p.book.live[good.ID()]))
		}
		_, err = p.book.put(r.ctx, p, 50_000, api.AllocOptions{})
		r.ok(err)
		info, err := p.Info(r.ctx)
		r.ok(err)
		if info.State != "active" || info.Drives[0].State != "online" {
			t.Errorf("after a read error the pool is %s, the drive %s", info.State, info.Drives[0].State)
		}
		// What is before the bad block can be read, and the whole again when
		// the drive can.
		buf := make([]byte, 4096)
		if _, err := bad.ReadAtContext(r.ctx, buf, 0); err != nil || !bytes.Equal(buf, data[:4096]) {
			t.Errorf("the block before: %v", err)
		}
		p.drives[0].Disk().Heal()
		r.ok(same(r.ctx, bad, data))
		p.drives[0].Disk().Inject(sim.Fault{Code: bdev.OpRead, From: at, To: at + 4096, Err: syscall.EIO})
		r.ok(p.book.remove(r.ctx, bad)) // a delete needs no data
		r.settle()
	})
}

// proves S40: a failed flush fails every write since the last good one, for
// ever; what comes after is whole again.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 1, loop: loop})
		p := r.pools[0]
		old, err := p.book.put(r.ctx, p, 300_000, api.AllocOptions{})
		r.ok(err)
		l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
		r.ok(err)
		r.ok(p.book.append(r.ctx, l.ID(), a))
		data := p.book.content(100_000)
		x, err := write(r.ctx, p, data, api.AllocOptions{})
		r.ok(err)
		y, err := write(r.ctx, p, data, api.AllocOptions{})
		r.ok(err)
		p.drives[0].Disk().Inject(sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1})
		r.want(p.book.commit(r.ctx, x, data), api.EIO)
		for range 3 {
			// The next flush succeeds, and says nothing about these.
			r.want(p.book.commit(r.ctx, x, data), api.EIO)
			r.want(p.book.commit(r.ctx, y, data), api.EIO)
		}
		if _, err := x.Write(r.ctx, data[:4096]); !errors.Is(err, api.EIO) && !errors.Is(err, api.ESTATE) {
			t.Errorf("a write to a poisoned mblock: %v", err)
		}
		info, err := p.Info(r.ctx)
		r.ok(err)
		if info.Drives[0].State != "failed" || info.Health == "optimal" {
			t.Errorf("after a failed flush the drive is %s, the pool %s", info.Drives[0].State, info.Health)
		}
		r.ok(x.Abort(r.ctx))
		r.ok(y.Abort(r.ctx))
		r.ok(same(r.ctx, old, p.book.live[old.ID()]))
		_, err = p.book.put(r.ctx, p, 100_000, api.AllocOptions{})
		r.ok(err)
		r.ok(p.book.append(r.ctx, l.ID(), a))
		r.settle()
	})
}

// proves S40: records under way in a failed flush are not acknowledged, nor is
// what is appended after them; the log is poisoned until the pool is activated anew.
func TestFailedFlushOfALog(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, loop bool) {
		r := newRig(t, spec{name: "a", capacity: 1, loop: loop})
		p := r.pools[0]
		l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
		r.ok(err)
		other, b, err := p.book.log(r.ctx, p, api.AllocOptions{})
		r.ok(err)
		r.ok(p.book.append(r.ctx, l.ID(), a))
		p.drives[0].Disk().Inject(sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1})
		r.want(p.book.append(r.ctx, l.ID(), a), api.EUNKNOWN)
		r.want(p.book.append(r.ctx, l.ID(), a), api.EIO)
		r.want(a.Sync(r.ctx), api.EUNKNOWN)
		r.ok(p.book.append(r.ctx, other.ID(), b)) // nothing of it was under way
		r.want(a.Close(r.ctx), api.EUNKNOWN)
		// What can be read now may be lost with the power: a log that is opened
		// would call it durable.
		_, err = l.OpenAppend(r.ctx)
		r.want(err, api.EIO)
		r.settle()
	})
}

// proves S40: when the metadata cannot be written or flushed, the outcome of
// what was under way is unknown, the pool is read-only, and nothing is
// acknowledged any more; reads go on.
func TestFailedMetadata(t *testing.T) {
	t.Parallel()
	for _, code := range []bdev.OpCode{bdev.OpWrite, bdev.OpFlush} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, spec{name: "a", capacity: 1, loop: code == bdev.OpWrite}, spec{name: "b", capacity: 1})
			p := r.pools[0]
			keep, err := p.book.put(r.ctx, p, 70_000, api.AllocOptions{})
			r.ok(err)
			l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
			r.ok(err)
			r.ok(p.book.append(r.ctx, l.ID(), a))
			data := p.book.content(10_000)
			open, err := write(r.ctx, p, data, api.AllocOptions{})
			r.ok(err)
			p.drives[0].Disk().Inject(sim.Fault{Code: code, Err: syscall.EIO, Count: 1})
			r.want(p.SetRoots(r.ctx, []api.Root{{Name: "x", ID: keep.ID()}}), api.EUNKNOWN)
			for range 2 { // the drive is sound again, which changes nothing
				r.want(p.SetRoots(r.ctx, []api.Root{{Name: "y", ID: keep.ID()}}), api.EROFS)
				err := p.book.commit(r.ctx, open, data)
				if code == bdev.OpFlush {
					r.want(err, api.EIO) // its data was in that flush
				} else {
					r.want(err, api.EROFS)
				}
				r.want(p.book.append(r.ctx, l.ID(), a), api.EROFS)
				r.want(p.book.remove(r.ctx, keep), api.EROFS)
				_, err = p.AllocMblock(r.ctx, api.AllocOptions{Capacity: 10})
				r.want(err, api.EROFS)
				r.ok(same(r.ctx, keep, p.book.live[keep.ID()]))
			}
			roots, err := p.Roots(r.ctx)
			r.ok(err)
			for _, root := range roots {
				if root.Name == "y" {
					t.Error("a root that was refused is there")
				}
			}
			info, err := p.Info(r.ctx)
			r.ok(err)
			if info.State != "read-only" || info.Health != "faulted" {
				t.Errorf("the pool is %s and %s", info.State, info.Health)
			}
			// Another pool does not know.
			_, err = r.pools[1].book.put(r.ctx, r.pools[1], 10_000, api.AllocOptions{})
			r.ok(err)
			r.settle()
		})
	}
}

// proves S40 S14: no space below a sparse file, writes cut short, and writes that
// never arrived: an error, or found when they are read; never wrong bytes.
func TestBadWrites(t *testing.T) {
	t.Parallel()
	inject := func(f sim.Fault) func(d *faultfs.Drive) {
		f.Code, f.Count = bdev.OpWrite, 1
		return func(d *faultfs.Drive) { d.Disk().Inject(f) }
	}
	for _, c := range []struct {
		name string
		do   func(d *faultfs.Drive)
		at   string // where it shows: "write", "read", "" at the write or nowhere
	}{
		{"ENOSPC", inject(sim.Fault{Err: syscall.ENOSPC}), "write"},
		{"EIO", inject(sim.Fault{Err: syscall.EIO}), "write"},
		{"short", func(d *faultfs.Drive) { d.Shorten(1) }, ""},
		{"lost", inject(sim.Fault{Effect: sim.EffectLost}), "read"},
		{"flip", inject(sim.Fault{Effect: sim.EffectFlip}), "read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, spec{name: "a", capacity: 1})
			p := r.pools[0]
			keep, err := p.book.put(r.ctx, p, 70_000, api.AllocOptions{})
			r.ok(err)
			data := p.book.content(65536)
			m, err := p.AllocMblock(r.ctx, api.AllocOptions{Capacity: 65536})
			r.ok(err)
			c.do(p.drives[0])
			_, err = m.Write(r.ctx, data)
			switch {
			case err == nil && c.at == "write":
				t.Error("a failed write is said to have been done")
			case err != nil:
				r.want(err, api.EIO)
				if full := strings.Contains(err.Error(), "no space left on device: the pool has room"); full != (c.name == "ENOSPC") {
					t.Errorf("it says whether what the drive lies on is full, wrongly: %v", err)
				}
				r.want(p.book.commit(r.ctx, m, data), api.EIO)
				r.ok(m.Abort(r.ctx))
			case c.at == "read":
				r.ok(m.Commit(r.ctx))
				r.want(same(r.ctx, m, data), api.ECORRUPT)
				r.ok(m.Delete(r.ctx))
			default:
				r.ok(p.book.commit(r.ctx, m, data))
			}
			r.ok(same(r.ctx, keep, p.book.live[keep.ID()]))
			_, err = p.book.put(r.ctx, p, 70_000, api.AllocOptions{})
			r.ok(err)
			r.settle()
		})
	}
}
