package server

import (
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/ioctl"
)

// An object is not handed over while writes or a commit of its giver's are under
// way, by ring or by socket; it is as soon as they are answered, with what they
// wrote.
//
// proves S35 S11
func TestHandOverDuringIO(t *testing.T) {
	r, g := newGateRig(t, func(o *Options) { o.Loops = 1 })
	w, other := r.ringDial(8), r.raw()
	at := other.openPool()
	alloc := &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 1 << 20}}
	for name, io := range map[string]struct {
		begin func(h ioctl.Handle)
		end   func(h ioctl.Handle)
		gate  func(*bdev.Op) bool
		after api.Code
	}{
		"ring write": {
			func(h ioctl.Handle) { w.put(w.desc(ioctl.OpMblockWrite, h, 8192, 0, 8192)) },
			func(ioctl.Handle) { w.next() },
			readsAndWrites, 0,
		},
		"socket write": {
			func(h ioctl.Handle) {
				w.send(ioctl.Header{Op: ioctl.OpMblockWrite, Tag: 1 << 40}, &ioctl.MblockWrite{
					Mblock: h, Total: 8192, Data: ioctl.InlinePayload(make([]byte, 8192)),
				})
			},
			func(ioctl.Handle) { must[ioctl.Message](t)(w.answer(ioctl.OpMblockWrite, 1<<40)) },
			readsAndWrites, 0,
		},
		"ring commit": {
			func(h ioctl.Handle) {
				w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 8192))
				g.hold(func(*bdev.Op) bool { return true })
				w.put(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0))
			},
			func(h ioctl.Handle) {
				w.next()
				w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
			},
			nil, api.ENOENT,
		},
		"commit": {
			func(h ioctl.Handle) {
				w.send(ioctl.Header{Op: ioctl.OpObjectCommit, Tag: 1 << 40}, &ioctl.Target{Handle: h})
			},
			func(h ioctl.Handle) {
				must[ioctl.Message](t)(w.answer(ioctl.OpObjectCommit, 1<<40))
				w.ok(ioctl.OpClose, &ioctl.Target{Handle: h})
			},
			func(*bdev.Op) bool { return true }, api.ENOENT,
		},
	} {
		h := w.opened(ioctl.OpMblockAlloc, alloc)
		token := must[api.Token](t)(grantOf(w.raw, h, time.Minute))
		g.hold(io.gate)
		io.begin(h)
		g.heldAtLeast(t, 1)
		_, err := acceptBy(other, at, token)
		want(t, api.EBUSY, err)
		g.open()
		io.end(h)
		got, err := acceptBy(other, at, token)
		if io.after != 0 {
			want(t, io.after, err)
			continue
		}
		if err != nil {
			t.Fatalf("after the %s: %v", name, err)
		}
		info := other.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: got.Handle}).(*ioctl.ObjectReply)
		if info.Info.Length != 8192 {
			t.Errorf("after the %s: %d bytes", name, info.Info.Length)
		}
		// Nothing of the giver's reaches it any more, through a ring neither.
		w.put(w.desc(ioctl.OpMblockWrite, h, 4096, 0, 4096))
		_, err = w.answer(ioctl.OpMblockWrite, w.tag)
		want(t, api.EBADF, err)
		other.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: got.Handle})
	}
}

// An object that a ring puts has a handle before its client knows it. Who finds the
// handle cannot grant it while the put is under way, and the put is whole.
//
// proves S35 S12
func TestGrantDuringPut(t *testing.T) {
	r, g := newGateRig(t, func(o *Options) { o.Loops = 1 })
	w := r.ringDial(8)
	w.alloc(1) // who acts for whom is known from now on
	held := func() (list []ioctl.Handle) {
		for _, h := range w.ok(ioctl.OpHandleList, &ioctl.HandlesAsk{}).(*ioctl.HandlesReply).Handles {
			if h.Kind == ioctl.HandleMblock {
				list = append(list, h.Handle)
			}
		}
		return list
	}
	before := held()
	for _, gate := range []func(*bdev.Op) bool{readsAndWrites, func(o *bdev.Op) bool { return o.Code == bdev.OpFlush }} {
		g.hold(gate)
		w.put(w.putDesc(0, 0, 4096))
		g.heldAtLeast(t, 1)
		found := held()
		if len(found) != len(before)+1 {
			t.Fatalf("%d handles on mblocks, want %d", len(found), len(before)+1)
		}
		h := found[len(found)-1]
		_, err := grantOf(w.raw, h, time.Minute)
		want(t, api.EBUSY, err)
		g.open()
		if x := w.next(); ioctl.Handle(x.A) != h {
			t.Errorf("put gives the handle %#x, want %#x", x.A, uint64(h))
		}
		_, err = grantOf(w.raw, h, time.Minute)
		want(t, api.ESTATE, err)
		w.do(w.desc(ioctl.OpClose, h, 0, 0, 0))
	}
}
