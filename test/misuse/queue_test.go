package misuse

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/server"
)

// A queue is given writes and their commit at once, and one of the writes does not
// fit: those behind it do not take its place, and nothing is committed without it.
//
// proves S11 S12
func TestQueueChain(t *testing.T) {
	s := serve(t, newDisks(), server.Options{})
	defer s.stop(t)
	c := s.dial(t)
	defer c.Close()
	w := &world{t: t, ctx: t.Context()}
	_, err := c.CreatePool(w.ctx, "p", []string{"one"}, api.CreateOptions{})
	w.ok(err)
	w.Pool, err = c.OpenPool(w.ctx, "p")
	w.ok(err)
	q, err := c.NewQueue(w.ctx, client.QueueOptions{Depth: 8})
	w.ok(err)
	defer q.Close()
	buffer := func(n int) *client.Buffer {
		b, err := c.Borrow(w.ctx, n)
		w.ok(err)
		copy(b.Bytes(), content(uint64(n), n))
		return b
	}
	first, large, last := buffer(4096), buffer(1<<20), buffer(8192)
	// ends reaps all that is under way, which must end so, by the number given.
	ends := func(codes ...api.Code) {
		t.Helper()
		out := make([]client.Completion, q.Flight())
		n, err := q.Reap(w.ctx, len(out), out)
		w.ok(err)
		if n != len(codes) {
			t.Fatalf("%d completions, want %d", n, len(codes))
		}
		for _, x := range out {
			if api.CodeOf(x.Err) != codes[x.User] {
				t.Errorf("%d: %v, want %v", x.User, x.Err, codes[x.User])
			}
		}
	}
	alloc := func() api.Mblock {
		m, err := w.AllocMblock(w.ctx, api.AllocOptions{Capacity: 16384})
		w.ok(err)
		return m
	}
	m := alloc()
	w.ok(errors.Join(q.Write(m, first, 0), q.Write(m, large, 1), q.Write(m, last, 2), q.Commit(m, 3)))
	ends(0, api.EFBIG, api.ESTATE, api.ESTATE)
	info, err := m.Info(w.ctx)
	w.ok(err)
	if info.State != api.StateUncommitted || info.Length != 4096 {
		t.Errorf("%+v", info)
	}
	if err := q.Write(m, first, 0); !errors.Is(err, api.EIO) {
		t.Errorf("a write of what is out of order: %v", err)
	}
	w.ok(m.Abort(w.ctx))

	// The last write of all can be given again.
	m = alloc()
	w.ok(errors.Join(q.Write(m, first, 0), q.Write(m, large, 1), q.Commit(m, 2)))
	ends(0, api.EFBIG, api.ESTATE)
	w.ok(errors.Join(q.Write(m, last, 0), q.Commit(m, 1)))
	ends(0, 0)
	info, err = m.Info(w.ctx)
	w.ok(err)
	if info.State != api.StateCommitted || info.Length != 4096+8192 {
		t.Errorf("%+v", info)
	}
	w.ok(m.Put())
	for _, b := range []*client.Buffer{first, large, last} {
		w.ok(b.Release())
	}
}
