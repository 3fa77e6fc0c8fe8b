package mpool

import (
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
)

// An object may become another process's while it is uncommitted, nobody else has
// a reference on it, and no I/O and no commit is under way.
//
// proves S35 S11
func TestMayHandOver(t *testing.T) {
	for seed := range uint64(10) {
		r := newRig(t, seed, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l := newLoop(r)
			x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1 << 20})
			r.ok(err)
			b := mblockOf(t, x)
			want := func(when string, code api.Code) {
				t.Helper()
				if err := p.MayHandOver(b); code == 0 && err != nil || code != 0 && !errors.Is(err, code) {
					t.Errorf("seed %d, %s: %v; want %v", seed, when, err, code)
				}
			}
			want("new", 0)
			again, err := b.Get(bg)
			r.ok(err)
			want("with another handle", api.EBUSY)
			r.ok(again.Put())
			want("after its put", 0)

			mem := aligned(8192, 'a')
			defer bdev.FreeBuffer(mem)
			var w WriteOp
			r.ok(b.BeginWrite(&w, mem))
			want("while a write is under way", api.EBUSY)
			l.do(w.Ops())
			want("before the write's end", api.EBUSY)
			_, err = w.End()
			r.ok(err)
			want("after the write", 0)
			var read ReadOp
			r.ok(b.BeginRead(&read, mem, 0))
			want("while a read is under way", api.EBUSY)
			read.Cancel()
			want("after the read", 0)

			wait := r.task(func() { r.ok(b.Commit(bg)) })
			busy := 0
			for err := p.MayHandOver(b); !errors.Is(err, api.ESTATE); err = p.MayHandOver(b) {
				if errors.Is(err, api.EBUSY) {
					busy++
				} else {
					r.ok(err)
				}
				r.ok(r.s.Sleep(bg, time.Microsecond))
			}
			if busy == 0 {
				t.Errorf("seed %d: never busy while a commit is under way", seed)
			}
			wait()
			r.ok(b.Delete(bg))
			want("after the delete", api.EBADF)
			r.ok(p.Close())
		})
	}
}
