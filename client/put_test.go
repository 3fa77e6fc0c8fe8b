package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// A queue makes and commits mblocks as the blocking calls do, and closing it gives
// up what nobody has reaped.
func TestQueueObjects(t *testing.T) {
	s := newRingScene(t)
	ctx := t.Context()
	q, b := s.newQueue(8, 3, page)
	handles := s.f.handles()
	if err := q.Alloc(s.p, api.AllocOptions{Capacity: 100}, 1); err != nil {
		t.Fatal(err)
	}
	c := q.reapAll(t)[0]
	if c.User != 1 || c.Err != nil || c.Mblock == nil || c.N != 0 || c.EOF {
		t.Fatalf("%+v", c)
	}
	m := c.Mblock
	copy(b[0].Bytes(), "queue")
	if err := errors.Join(b[0].SetLen(5), q.Write(m, b[0], 2), q.Commit(m, 3)); err != nil {
		t.Fatal(err)
	}
	for _, c := range q.reapAll(t) {
		if want := []int{2: 5, 3: 0}[c.User]; c.Err != nil || c.N != want || c.Mblock != nil {
			t.Errorf("%+v", c)
		}
	}
	copy(b[1].Bytes(), "put")
	if err := errors.Join(b[1].SetLen(3), q.PutMblock(s.p, api.AllocOptions{}, b[1], 4)); err != nil {
		t.Fatal(err)
	}
	c = q.reapAll(t)[0]
	for m, want := range map[api.Mblock]string{m: "queue", c.Mblock: "put"} {
		if info, err := m.Info(ctx); err != nil || info.State != api.StateCommitted {
			t.Errorf("%+v, %v", info, err)
		}
		p := make([]byte, 10)
		if n, _ := m.ReadAtContext(ctx, p, 0); string(p[:n]) != want {
			t.Errorf("%q, want %q", p[:n], want)
		}
		if err := q.Release(m, 5); err != nil {
			t.Error(err)
		}
		if err := m.Put(); !errors.Is(err, api.EBADF) {
			t.Errorf("put after release: %v", err)
		}
	}
	for _, c := range q.reapAll(t) {
		if c.User != 5 || c.Err != nil || c.Mblock != nil {
			t.Errorf("%+v", c)
		}
	}
	if err := errors.Join(q.Alloc(s.p, api.AllocOptions{}, 6), q.PutMblock(s.p, api.AllocOptions{}, b[2], 7), q.Close()); err != nil {
		t.Error(err)
	}
	s.f.mu.Lock()
	aborted := s.f.done[ioctl.OpObjectAbort]
	s.f.mu.Unlock()
	if n := s.f.handles(); n != handles || aborted == 0 {
		t.Errorf("%d handles are left, want %d; aborted %d", n, handles, aborted)
	}
	// What it cannot give up is in nobody's way.
	q, _ = s.newQueue(8, 0, 0)
	s.f.mu.Lock()
	s.f.refuse = func(op ioctl.Op) error {
		if op == ioctl.OpClose || op == ioctl.OpObjectAbort {
			return api.EIO
		}
		return nil
	}
	s.f.mu.Unlock()
	err := errors.Join(q.Alloc(s.p, api.AllocOptions{}, 8), q.Close())
	q.mu.Lock()
	if err != nil || !q.ended {
		t.Errorf("closed: %v; its memory was given back: %v", err, q.ended)
	}
	q.mu.Unlock()
	s.f.mu.Lock()
	s.f.refuse = nil
	s.f.mu.Unlock()
}

// handles returns how many handles on objects there are.
func (f *fake) handles() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.conns {
		n += len(s.handles)
	}
	return n
}

// What is made when nobody waits any more is given back, or, if it is not committed,
// aborted.
//
// proves S30 S46
func TestMadeTooLate(t *testing.T) {
	for op, call := range map[ioctl.Op]func(ctx context.Context, p api.Pool) error{
		ioctl.OpMblockAlloc: func(ctx context.Context, p api.Pool) error {
			_, err := p.AllocMblock(ctx, api.AllocOptions{})
			return err
		},
		ioctl.OpMblockPut: func(ctx context.Context, p api.Pool) error {
			_, err := p.PutMblock(ctx, api.AllocOptions{}, []byte("late"))
			return err
		},
	} {
		s := newRingScene(t)
		handles := s.f.handles()
		undo := ioctl.OpClose // of what is committed
		if op == ioctl.OpMblockAlloc {
			undo = ioctl.OpObjectAbort
		}
		s.f.withholdThose(func(d *ring.Descriptor) bool { return d.Op == uint16(op) })
		ctx, ended := newFuse(t), make(chan error, 1)
		go func() { ended <- call(ctx, s.p) }()
		s.f.withheld(1)
		close(ctx.up)
		err := <-ended
		if code := api.CodeOf(err); code != api.EUNKNOWN && code != api.ETIMEDOUT || op.Mutates() != (code == api.EUNKNOWN) {
			t.Errorf("%v: %v", op, err)
		}
		s.f.withholdThose(nil)
		s.f.letGo(all)
		for end := time.Now().Add(inVain); ; time.Sleep(100 * time.Microsecond) {
			s.f.mu.Lock()
			done := s.f.done[op] > 0 && s.f.done[undo] > 0
			s.f.mu.Unlock()
			if n := s.f.handles(); n == handles && done {
				break
			} else if time.Now().After(end) {
				t.Fatalf("%v: %d handles are left, want %d", op, n, handles)
			}
		}
	}
}

// While all slots of the ring are taken, by a drive that hangs say, objects are
// made, committed and given up over the socket.
//
// proves S42
func TestNoSlotForObjects(t *testing.T) {
	s := newRingScene(t)
	ctx := t.Context()
	r := s.c.ringed(t)
	s.f.withholdThose(all)
	ended := make(chan error, len(r.slots))
	for range r.slots {
		go func() {
			_, err := s.old.ReadAtContext(ctx, make([]byte, 1), 0)
			ended <- err
		}()
	}
	s.f.withheld(len(r.slots))
	m := must(s.p.AllocMblock(ctx, api.AllocOptions{}))
	if err := errors.Join(m.Commit(ctx), m.Put()); err != nil {
		t.Error(err)
	}
	for _, n := range []int{10, 5 * page} {
		m := must(s.p.PutMblock(ctx, api.AllocOptions{}, bytes.Repeat([]byte("x"), n)))
		if err := m.Put(); err != nil {
			t.Error(err)
		}
	}
	s.f.withholdThose(nil)
	s.f.letGo(all)
	for range r.slots {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
