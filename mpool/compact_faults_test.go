package mpool

import (
	"errors"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

// proves S26 S40: whichever I/O of a compaction fails, nothing that was
// acknowledged is lost, nothing is acknowledged after, and what is there is whole.
func TestCompactionFailsAtAnyIO(t *testing.T) {
	const objects = 12
	failed := 0
	for at := uint64(0); ; at++ {
		hit := false
		r := newRig(t, at, 24<<20)
		r.meta = 48 << 10
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			_, err := p.AddOwner(bg, "web", 0)
			r.ok(err)
			var ids [objects]layout.ObjectID
			for i := range ids {
				ids[i] = r.put(p, 100)
			}
			r.ok(p.SetRoots(bg, []api.Root{{Name: "first", ID: ids[0]}}))
			r.ok(r.remove(p, ids[1]))
			r.disk.Inject(devsim.Fault{Skip: at, Count: 1, Err: syscall.EIO})
			p.meta.mu.Lock()
			before := p.meta.compactions
			p.meta.compactLocked()
			for p.meta.compactions == before {
				r.ok(p.meta.cond.Wait(bg))
			}
			p.meta.mu.Unlock()
			hit = r.disk.FaultHits()[0] > 0
			r.disk.Heal()
			info, err := p.Info(bg)
			r.ok(err)
			readOnly := info.State == "read-only"
			if readOnly {
				failed++
				r.want(api.EROFS, p.SetRoots(bg, []api.Root{{Name: "second", ID: ids[0]}}))
			} else {
				r.ok(p.SetRoots(bg, []api.Root{{Name: "second", ID: ids[0]}}))
			}
			r.kill(p)
			p = r.activate()
			roots, err := p.Roots(bg)
			r.ok(err)
			if second := len(roots) == 2; len(roots) == 0 || second == readOnly {
				t.Errorf("I/O %d fails, read-only %v: roots %v", at, readOnly, roots)
			}
			for i, id := range ids {
				switch b, err := p.Mblock(bg, id); {
				case i == 1 && !errors.Is(err, api.ENOENT):
					t.Errorf("I/O %d fails: what was deleted is there: %v", at, err)
				case i != 1 && err != nil:
					t.Errorf("I/O %d fails: %v", at, err)
				case err == nil:
					r.ok(b.Put())
				}
			}
			r.ok(p.Close())
		})
		if !hit || t.Failed() {
			break // a compaction has no more
		}
	}
	if failed == 0 {
		t.Error("no compaction failed")
	}
	t.Logf("%d failed", failed)
}
