package mpool

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

// A drive that fails its superblocks while it is grown is brought up by the next
// activation. Where its end was is an object's by then.
//
// proves S2
func TestGrownDriveThatLags(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		r.ok(r.activate().Close())
		r.grow(32 * mib)
		old := make([]byte, 4096)
		_, err := r.disks[1].ReadAt(old, 0)
		r.ok(err)
		r.disks[1].Inject(devsim.Fault{Code: bdev.OpWrite, Err: syscall.EIO, To: 4096})
		p, err := r.activateOn(r.paths(), api.ActivateOptions{Resize: true})
		r.ok(err)
		_, err = r.disks[1].WriteAt(old, 0) // what the write that failed has done: nothing
		r.ok(err)
		var ids []layout.ObjectID
		data := fill(5 * mib)
		for { // the drive that failed must serve, too
			b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(len(data))})
			if api.CodeOf(err) == api.ENOSPC {
				break
			}
			r.ok(err)
			_, err = b.Write(bg, data)
			r.ok(err)
			r.ok(b.Commit(bg))
			r.ok(b.Put())
			ids = append(ids, b.ID())
		}
		if len(ids) < 10 {
			t.Fatalf("%d objects fill both drives", len(ids))
		}
		r.ok(p.Close())
		r.disks[1].Heal()
		p = r.activate()
		for _, id := range ids {
			got, err := read(p, id, len(data))
			r.ok(err)
			if !bytes.Equal(got, data) {
				t.Errorf("%v is not what was written", id)
			}
		}
		r.ok(p.Close())
	})
}
