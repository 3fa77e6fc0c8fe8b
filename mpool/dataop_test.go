package mpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// mblockOf returns the handle's own type.
func mblockOf(t *testing.T, x api.Mblock) *Mblock {
	t.Helper()
	b, ok := x.(*Mblock)
	if !ok {
		t.Fatalf("%T", x)
	}
	return b
}

// loop drives operations as an I/O loop does.
type loop struct {
	r *rig
	q bdev.Queue
}

func newLoop(r *rig) *loop {
	r.t.Helper()
	q, err := bdev.NewQueue(r.s, bdev.QueueOptions{})
	r.ok(err)
	return &loop{r: r, q: q}
}

// do starts operations and reaps them all.
func (l *loop) do(ops []*bdev.Op) {
	l.r.t.Helper()
	for _, o := range ops {
		if !l.q.Put(o) {
			l.r.t.Fatal("the queue is full")
		}
	}
	for l.q.InFlight() > 0 {
		_, err := l.q.Reap(1)
		l.r.ok(err)
	}
}

// task runs f and returns what waits for its end.
func (r *rig) task(f func()) (wait func()) {
	var done sched.Completion
	done.Init(r.s)
	r.s.Go("task", func() {
		f()
		done.Done()
	})
	return func() {
		r.t.Helper()
		r.ok(done.Wait(bg))
	}
}

// later lets the other tasks run for a while.
func (r *rig) later() { r.ok(r.s.Sleep(bg, time.Second)) }

// aligned returns n bytes that a device can reach.
func aligned(n int, fill byte) []byte {
	b := bdev.AllocBuffer(n)
	for i := range b {
		b[i] = fill
	}
	return b
}

// proves S11, S12, S13
func TestBegunWritesAndReads(t *testing.T) {
	for seed := range uint64(10) {
		r := newRig(t, seed, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l := newLoop(r)
			x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1 << 20})
			r.ok(err)
			b := mblockOf(t, x)
			one, two := aligned(8192, 'a'), aligned(4096, 'b')
			defer bdev.FreeBuffer(one)
			defer bdev.FreeBuffer(two)
			var w1, w2 WriteOp
			r.ok(b.BeginWrite(&w1, one))
			r.ok(b.BeginWrite(&w2, two[:1000]))
			if !w1.Direct() || w2.Direct() {
				t.Errorf("direct: %v, %v", w1.Direct(), w2.Direct())
			}
			want := append(bytes.Clone(one), two[:1000]...)
			l.do(w1.Ops())
			n, err := w1.End()
			r.ok(err)
			if n != 8192 {
				t.Errorf("wrote %d", n)
			}

			// What has ended can be read, before the commit.
			buf := aligned(16384, 0)
			defer bdev.FreeBuffer(buf)
			var rd ReadOp
			r.ok(b.BeginRead(&rd, buf, 0))
			l.do(rd.Ops())
			if n, err := rd.End(); n != 8192 || err != io.EOF || !bytes.Equal(buf[:n], want[:n]) { //nolint:errorlint // bare
				t.Errorf("read of an uncommitted mblock: %d, %v", n, err)
			}

			committed := false
			wait := r.task(func() {
				if err := b.Commit(bg); err != nil {
					t.Error(err)
				}
				committed = true
			})
			r.later()
			if committed {
				t.Error("committed before a begun write has ended")
			}
			r.want(api.ESTATE, b.BeginWrite(new(WriteOp), two))
			l.do(w2.Ops())
			_, err = w2.End()
			r.ok(err)
			wait()
			r.ok(b.BeginRead(&rd, buf, 0))
			if !rd.Direct() {
				t.Error("an aligned read is not direct")
			}
			l.do(rd.Ops())
			if n, err := rd.End(); n != len(want) || err != io.EOF || !bytes.Equal(buf[:n], want) { //nolint:errorlint // bare
				t.Errorf("read of a committed mblock: %d, %v", n, err)
			}
			r.ok(b.Put())
			r.want(api.EBADF, b.BeginRead(&rd, buf, 0))
			r.want(api.EBADF, b.BeginWrite(&w1, one))
			r.ok(l.q.Close())
			r.ok(p.Close())
		})
	}
}

// The space of what a begun operation touches is nobody else's before its end,
// whoever deletes or aborts the object meanwhile.
//
// proves S8, S15, S33
func TestBegunOperationsKeepTheSpace(t *testing.T) {
	for seed := range uint64(10) {
		r := newRig(t, seed, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			l := newLoop(r)
			id := r.put(p, 4096)
			x, err := p.Mblock(bg, id)
			r.ok(err)
			b := mblockOf(t, x)
			var rd ReadOp
			var w WriteOp
			buf := aligned(4096, 'x')
			defer bdev.FreeBuffer(buf)
			r.ok(b.BeginRead(&rd, buf, 0))
			r.ok(b.Put())
			r.ok(r.remove(p, id)) // by another handle, of who found it anew

			x, err = p.AllocMblock(bg, api.AllocOptions{Capacity: 4096})
			r.ok(err)
			b = mblockOf(t, x)
			mine := aligned(4096, 'y')
			defer bdev.FreeBuffer(mine)
			r.ok(b.BeginWrite(&w, mine))
			r.ok(b.Abort(bg))
			r.later()
			info, err := p.Info(bg)
			r.ok(err)
			if info.Space.Draining != 2*info.ZoneSize {
				t.Errorf("%d bytes are draining, want two zones of %d", info.Space.Draining, info.ZoneSize)
			}
			l.do(rd.Ops())
			if n, err := rd.End(); n != 4096 || err != nil {
				t.Errorf("read of a deleted mblock: %d, %v", n, err)
			}
			l.do(w.Ops())
			if n, err := w.End(); n != 4096 || err != nil {
				t.Errorf("write of an aborted mblock: %d, %v", n, err)
			}
			r.later()
			info, err = p.Info(bg)
			r.ok(err)
			if info.Space.Draining != 0 || info.Space.Live != 0 || info.Space.Uncommitted != 0 {
				t.Errorf("space is kept by nobody: %+v", info.Space)
			}
			r.ok(l.q.Close())
			r.ok(p.Close())
		})
	}
}

// An object that nobody has a reference on stays in use while operations are
// under way, and is forgotten after.
func TestBegunReadKeepsTheObjectInUse(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 4096)
		x, err := p.Mblock(bg, id)
		r.ok(err)
		b := mblockOf(t, x)
		var one, two ReadOp
		buf := aligned(4096, 'x')
		defer bdev.FreeBuffer(buf)
		r.ok(b.BeginRead(&one, buf, 0))
		r.ok(b.BeginRead(&two, buf, 0))
		r.ok(b.Put())
		one.Cancel()
		r.later()
		inUse := func() int {
			p.usesMu.Lock()
			defer p.usesMu.Unlock()
			return len(p.uses)
		}
		if n := inUse(); n != 1 {
			t.Errorf("%d objects are in use, want the one with I/O under way", n)
		}
		two.Cancel()
		r.later()
		if n := inUse(); n != 0 {
			t.Errorf("%d objects are in use, want none", n)
		}
		r.ok(p.Close())
	})
}

// Deactivation is refused while handles are in use; when it goes ahead, it waits
// for operations that were begun, and no others begin.
//
// proves S33
func TestBegunOperationsHoldUpDeactivation(t *testing.T) {
	for seed := range uint64(10) {
		for _, force := range []bool{false, true} {
			r := newRig(t, seed, 64<<20)
			r.run(func() {
				r.create(api.CreateOptions{})
				p := r.activate()
				l := newLoop(r)
				id := r.put(p, 4096)
				x, err := p.Mblock(bg, id)
				r.ok(err)
				b := mblockOf(t, x)
				x, err = p.AllocMblock(bg, api.AllocOptions{Capacity: 4096})
				r.ok(err)
				c := mblockOf(t, x)
				var rd, again ReadOp
				var w WriteOp
				buf := aligned(4096, 'x')
				defer bdev.FreeBuffer(buf)
				mine := aligned(4096, 'y')
				defer bdev.FreeBuffer(mine)
				r.ok(b.BeginRead(&rd, buf, 0))
				r.ok(c.BeginWrite(&w, mine))
				r.want(api.EBUSY, p.Close())
				if !force {
					r.ok(b.Put())
					r.ok(c.Abort(bg))
				}
				closed := false
				wait := r.task(func() {
					end := p.Close
					if force {
						end = func() error { return p.Abandon(bg) }
					}
					if err := end(); err != nil {
						t.Error(err)
					}
					closed = true
				})
				r.later()
				if closed {
					t.Error("closed before the operations have ended")
				}
				r.want(api.EBADF, b.BeginRead(&again, buf, 0))
				l.do(rd.Ops())
				if n, err := rd.End(); n != 4096 || err != nil {
					t.Errorf("read: %d, %v", n, err)
				}
				r.later()
				if closed {
					t.Error("closed before the write has ended")
				}
				l.do(w.Ops())
				if n, err := w.End(); n != 4096 || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
				wait()
				r.ok(l.q.Close())
			})
		}
	}
}

// A mismatch is told of, unless the caller asks for silence; both times it is
// ECORRUPT and the bytes are gone.
//
// proves S14
func TestQuietEndTellsNobody(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		opt := r.options()
		events := 0
		opt.OnEvent = func(e Event) {
			if e.Type == EventCorruption {
				events++
			}
		}
		p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, opt)
		r.ok(err)
		l := newLoop(r)
		x, err := p.Mblock(bg, r.put(p, 8192))
		r.ok(err)
		b := mblockOf(t, x)
		buf := aligned(8192, 'x')
		defer bdev.FreeBuffer(buf)
		var rd ReadOp
		for want, end := range []func() (int, error){rd.EndQuiet, rd.End} {
			r.ok(b.BeginRead(&rd, buf, 0))
			l.do(rd.Ops())
			buf[4096]++ // as a hostile client does
			if n, err := end(); n != 4096 || api.CodeOf(err) != api.ECORRUPT {
				t.Errorf("read of changed bytes: %d, %v", n, err)
			}
			if events != want {
				t.Errorf("%d events, want %d", events, want)
			}
		}
		r.disk.Inject(devsim.Fault{Code: bdev.OpRead, Err: syscall.EIO, Count: 1})
		r.ok(b.BeginRead(&rd, buf, 0))
		l.do(rd.Ops())
		if _, err := rd.End(); !errors.Is(err, api.EIO) || events != 1 {
			t.Errorf("failed read: %v, %d events", err, events)
		}
		r.ok(b.Put())
		r.ok(l.q.Close())
		r.ok(p.Close())
	})
}

// A failed begun write poisons its mblock, once.
//
// proves S40
func TestFailedBegunWritePoisons(t *testing.T) {
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		opt := r.options()
		poisoned := 0
		opt.OnEvent = func(e Event) {
			if e.Type == EventPoisoned {
				poisoned++
			}
		}
		p, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, opt)
		r.ok(err)
		l := newLoop(r)
		x, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 1 << 20})
		r.ok(err)
		b := mblockOf(t, x)
		mine := aligned(4096, 'y')
		defer bdev.FreeBuffer(mine)
		var one, two WriteOp
		r.ok(b.BeginWrite(&one, mine))
		r.ok(b.BeginWrite(&two, mine))
		r.disk.Inject(devsim.Fault{Code: bdev.OpWrite, Err: syscall.EIO, Count: 1})
		l.do(one.Ops())
		_, err = one.End()
		r.want(api.EIO, err)
		l.do(two.Ops())
		if n, err := two.End(); n != 4096 || err != nil {
			t.Errorf("the other write: %d, %v", n, err)
		}
		r.want(api.EIO, b.BeginWrite(&one, mine))
		r.want(api.EIO, b.Commit(bg))
		if poisoned != 1 {
			t.Errorf("told %d times", poisoned)
		}
		r.ok(b.Abort(bg))
		r.ok(l.q.Close())
		r.ok(p.Close())
	})
}

// Appends are begun and told without a task that waits: by the handles of logs
// and of containers, of which the last is told before its close is over.
//
// proves S21, S25
func TestBegunAppends(t *testing.T) {
	for seed := range uint64(20) {
		r := newRig(t, seed, 64<<20)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			lg, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 1 << 20})
			r.ok(err)
			r.ok(lg.Commit(bg))
			a, err := lg.OpenAppend(bg)
			r.ok(err)
			id, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 1 << 20})
			r.ok(err)
			c, err := p.OpenMDC(bg, id)
			r.ok(err)
			for _, x := range []any{a, c} {
				name := fmt.Sprintf("%T", x)
				b, ok := x.(Beginner)
				if !ok {
					t.Fatalf("%s begins nothing", name)
				}
				var told []error
				done := func(err error) { told = append(told, err) }
				n, err := b.BeginAppend([]byte("one"), false, nil)
				r.ok(err)
				if n != 0 {
					t.Errorf("%s: the first record is %d", name, n)
				}
				n, err = b.BeginAppend([]byte("two"), true, done)
				r.ok(err)
				if n != 1 {
					t.Errorf("%s: the second record is %d", name, n)
				}
				r.ok(b.BeginSync(done))
				r.later()
				if len(told) != 2 || told[0] != nil || told[1] != nil {
					t.Errorf("%s: told %v", name, told)
				}
				_, err = b.BeginAppend([]byte("three"), true, done)
				r.ok(err)
				_, err = b.BeginAppend(make([]byte, 17<<20), true, done)
				r.want(api.EINVAL, err)
				r.ok(x.(interface{ Close(context.Context) error }).Close(bg))
				if len(told) != 3 || told[2] != nil {
					t.Errorf("%s: told %v before the end of the close", name, told)
				}
				_, err = b.BeginAppend([]byte("four"), true, done)
				r.want(api.EBADF, err)
				r.want(api.EBADF, b.BeginSync(done))
			}
			r.ok(lg.Put())
			r.ok(p.Close())
		})
	}
}
