package server

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// chained makes a descriptor that its client gives without waiting for those
// before it, when it knows of so many failures.
func chained(d *ring.Descriptor, failures int64) *ring.Descriptor {
	d.Flags, d.Offset = ring.FlagChained, failures
	return d
}

// together puts descriptors before the loop hears of them. The first so many must
// succeed, and the others fail, each with its code.
func (w *ringClient) together(succeed int, codes []api.Code, list ...*ring.Descriptor) {
	w.t.Helper()
	for _, d := range list {
		if !w.c.Put(d) {
			w.t.Fatal("no room in the ring")
		}
	}
	w.c.Bell()
	for range succeed {
		w.next()
	}
	for i, d := range list[succeed:] {
		_, err := w.answer(ioctl.Op(d.Op), d.Tag)
		want(w.t, codes[i], err)
	}
}

// When a write is refused, those that were given behind it do not take its place,
// and nothing is committed without it: in the loop and in lanes, for any reason.
//
// proves S11 S12
func TestRingChain(t *testing.T) {
	const lane = loopMaxData + 1<<20 // bytes that a loop does not do itself
	outside := func(d *ring.Descriptor) *ring.Descriptor { d.Window = 1 << 30; return d }
	noArena := func(d *ring.Descriptor) *ring.Descriptor { d.Arena = 9; return d }
	same := func(d *ring.Descriptor) *ring.Descriptor { return d }
	for name, c := range map[string]struct {
		first, second int
		spoil         func(*ring.Descriptor) *ring.Descriptor
		code          api.Code
	}{
		"too large":           {4096, 1 << 20, same, api.EFBIG},
		"no place to read":    {4096, 4096, noArena, api.EINVAL},
		"outside":             {4096, 4096, outside, api.EINVAL},
		"too large, lane":     {lane, lane, same, api.EFBIG},
		"outside, lane":       {lane, 4096, outside, api.EINVAL},
		"first of lane":       {4096, lane, same, api.EFBIG},
		"no place, of a lane": {4096, lane, noArena, api.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLoopRig(t)
			w := r.ringDial(16)
			p := random(5, c.first+4096)
			copy(w.mem, p)
			write := func(h ioctl.Handle, at, n int, failures int64) *ring.Descriptor {
				return chained(w.desc(ioctl.OpMblockWrite, h, 0, at, n), failures)
			}
			commit := func(h ioctl.Handle, failures int64) *ring.Descriptor {
				return chained(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0), failures)
			}
			as := func(h ioctl.Handle, state api.State, length int) {
				t.Helper()
				if i := w.info(h); i.State != state || i.Length != int64(length) {
					t.Errorf("%+v, want state %v and %d bytes", i, state, length)
				}
			}
			// In the middle.
			h := w.alloc(int64(len(p)))
			w.together(1, []api.Code{c.code, api.ESTATE, api.ESTATE},
				write(h, 0, c.first, 0), c.spoil(write(h, 0, c.second, 0)), write(h, 0, 4096, 0), commit(h, 0))
			as(h, api.StateUncommitted, c.first)
			w.together(0, []api.Code{api.ESTATE}, commit(h, 1)) // it knows of one of the two
			w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: h})
			// The last; then it is given again.
			h = w.alloc(int64(len(p)))
			w.together(1, []api.Code{c.code, api.ESTATE},
				write(h, 0, c.first, 0), c.spoil(write(h, 0, c.second, 0)), commit(h, 0))
			as(h, api.StateUncommitted, c.first)
			w.together(2, nil, write(h, c.first, 4096, 1), commit(h, 1))
			as(h, api.StateCommitted, len(p))
			for off := 0; off < len(p); off += 1 << 20 {
				n := min(1<<20, len(p)-off)
				w.do(w.desc(ioctl.OpMblockRead, h, int64(off), 0, n))
				if !bytes.Equal(w.mem[:n], p[off:off+n]) {
					t.Fatalf("other bytes at %d", off)
				}
			}
		})
	}
}

// What is behind a write that its device has failed is told so, not that it was
// given at the wrong time.
//
// proves S12 S40
func TestRingChainOfFailedWrite(t *testing.T) {
	r, g := newGateRig(t)
	w := r.ringDial(16)
	h := w.alloc(1 << 20)
	g.hold(readsAndWrites)
	w.put(chained(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096), 0))
	g.heldAtLeast(t, 1)
	g.mu.Lock()
	held := g.held[0]
	g.held = nil
	g.mu.Unlock()
	held.Err = syscall.EIO
	held.Complete(syscall.EIO)
	_, err := w.answer(ioctl.OpMblockWrite, w.tag)
	want(t, api.EIO, err)
	w.together(0, []api.Code{api.EIO, api.EIO},
		chained(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096), 0), chained(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0), 0))
	w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: h})
}
