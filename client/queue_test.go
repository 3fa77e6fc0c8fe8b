package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
)

// newQueue makes a queue and buffers, which the test's end gives back.
func (s *scene) newQueue(depth, buffers, size int) (*Queue, []*Buffer) {
	s.t.Helper()
	q, err := s.c.NewQueue(s.t.Context(), QueueOptions{Depth: depth})
	if err != nil {
		s.t.Fatal(err)
	}
	bufs := make([]*Buffer, buffers)
	for i := range bufs {
		bufs[i] = must(s.c.Borrow(s.t.Context(), size))
	}
	s.t.Cleanup(func() {
		if err := q.Close(); err != nil && !errors.Is(err, api.EBADF) {
			s.t.Error(err)
		}
		for _, b := range bufs {
			if err := b.Release(); err != nil && !errors.Is(err, api.EBADF) {
				s.t.Error(err)
			}
		}
	})
	return q, bufs
}

// reapAll reaps everything that is under way.
func (q *Queue) reapAll(t *testing.T) []Completion {
	t.Helper()
	out := make([]Completion, q.Flight())
	n, err := q.Reap(t.Context(), len(out), out)
	if err != nil || n != len(out) || q.Flight() != 0 {
		t.Fatalf("%d of %d, %d are under way: %v", n, len(out), q.Flight(), err)
	}
	return out
}

// A queue does what blocking calls do: bytes, ends, numbers and errors.
func TestQueue(t *testing.T) {
	s := newRingScene(t)
	ctx := t.Context()
	q, b := s.newQueue(8, 6, 8*page)
	m := must(s.p.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20}))
	for i := range 4 {
		for j := range b[i].Bytes() {
			b[i].Bytes()[j] = byte(i)
		}
		if err := q.Write(m, b[i], uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b[4].SetLen(5), b[5].SetLen(0)); err != nil {
		t.Fatal(err)
	}
	copy(b[4].Bytes(), "12345")
	if err := errors.Join(q.Append(s.app, b[4], true, 10), q.Append(s.app, b[5], false, 11), q.Sync(s.app, 12)); err != nil {
		t.Fatal(err)
	}
	for _, c := range q.reapAll(t) {
		want := Completion{User: c.User}
		switch c.User {
		case 10:
			want.N, want.Record = 5, 2
		case 11:
			want.Record = 3
		case 12:
		default:
			want.N = 8 * page
		}
		if c != want {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
	if n, _ := s.app.Len(); n != 4 {
		t.Errorf("%d records", n)
	}
	if err := m.Commit(ctx); err != nil {
		t.Error(err)
	}
	// A part, the end, and past it.
	if err := errors.Join(b[4].SetLen(page), q.Read(m, b[4], 8*page-1, 1), q.Read(m, b[0], 31*page, 2), q.Read(m, b[1], 99*page, 3)); err != nil {
		t.Fatal(err)
	}
	for _, c := range q.reapAll(t) {
		want := []Completion{1: {User: 1, N: page}, 2: {User: 2, N: page, EOF: true}, 3: {User: 3, EOF: true}}[c.User]
		if c != want {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
	if p := b[4].Bytes(); p[0] != 0 || p[1] != 1 || p[page-1] != 1 {
		t.Errorf("% x", p[:2])
	}
	s.f.mu.Lock()
	s.f.refuse = func(ioctl.Op) error { return api.EIO }
	s.f.mu.Unlock()
	if err := errors.Join(q.Read(m, b[0], 0, 1), q.Append(s.app, b[1], true, 2), q.Sync(s.app, 3)); err != nil {
		t.Fatal(err)
	}
	for _, c := range q.reapAll(t) {
		if !errors.Is(c.Err, api.EIO) || c.N != 0 {
			t.Errorf("%+v", c)
		}
	}
	s.f.mu.Lock()
	s.f.refuse = nil
	s.f.mu.Unlock()
}

// What a queue or a buffer is misused for is an error that says so, and harms
// nothing.
func TestQueueMisuse(t *testing.T) {
	s := newRingScene(t)
	ctx := t.Context()
	other := s.f.connect(Options{})
	alienBuf := must(other.Borrow(ctx, page))
	defer alienBuf.Release()
	alienPool := must(other.OpenPool(ctx, "data"))
	alienBlock := must(alienPool.Mblock(ctx, s.old.ID()))
	closed, _ := s.newQueue(4, 0, 0)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	q, b := s.newQueue(4, 6, page)
	full, fb := s.newQueue(4, 5, page)
	put := must(s.p.Mblock(ctx, s.old.ID()))
	if err := put.Put(); err != nil {
		t.Fatal(err)
	}
	s.f.withholdThose(all)
	for i := range 4 {
		if err := full.Read(s.old, fb[i], 0, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	gone := b[5]
	if err := gone.Release(); err != nil {
		t.Fatal(err)
	}
	io := s.old.(BufferIO)
	for name, c := range map[string]struct {
		err  error
		want api.Code
	}{
		"depth below":      {second(s.c.NewQueue(ctx, QueueOptions{Depth: -1})), api.EINVAL},
		"depth above":      {second(s.c.NewQueue(ctx, QueueOptions{Depth: MaxDepth + 1})), api.EINVAL},
		"closed":           {closed.Read(s.old, b[0], 0, 0), api.EBADF},
		"closed twice":     {closed.Close(), api.EBADF},
		"closed, reap":     {second(closed.Reap(ctx, 0, nil)), api.EBADF},
		"full":             {full.Read(s.old, b[0], 0, 0), api.EAGAIN},
		"full, sync":       {full.Sync(s.app, 0), api.EAGAIN},
		"alien mblock":     {q.Read(alienBlock, b[0], 0, 0), api.EINVAL},
		"alien buffer":     {q.Read(s.old, alienBuf, 0, 0), api.EINVAL},
		"no mblock":        {q.Read(nil, b[0], 0, 0), api.EINVAL},
		"no buffer":        {q.Read(s.old, nil, 0, 0), api.EINVAL},
		"another mblock":   {q.Write(struct{ api.Mblock }{s.old}, b[0], 0), api.EINVAL},
		"another appender": {q.Append(struct{ api.Appender }{s.app}, b[0], true, 0), api.EINVAL},
		"no appender":      {q.Sync(nil, 0), api.EINVAL},
		"released":         {q.Write(s.fresh, gone, 0), api.EBADF},
		"released twice":   {gone.Release(), api.EBADF},
		"busy, read":       {q.Read(s.old, fb[0], 0, 0), api.EBUSY},
		"busy, write":      {q.Write(s.fresh, fb[0], 0), api.EBUSY},
		"busy, append":     {q.Append(s.app, fb[0], true, 0), api.EBUSY},
		"busy, blocking":   {second(io.ReadBuffer(ctx, fb[0], 0)), api.EBUSY},
		"blocking, alien":  {second(io.ReadBuffer(ctx, alienBuf, 0)), api.EINVAL},
		"blocking, gone":   {second(io.WriteBuffer(ctx, gone)), api.EBADF},
		"blocking, nil":    {second(io.WriteBuffer(ctx, nil)), api.EINVAL},
		"put":              {q.Read(put, b[0], 0, 0), api.EBADF},
		"put, commit":      {q.Commit(put, 0), api.EBADF},
		"put, release":     {q.Release(put, 0), api.EBADF},
		"alien commit":     {q.Commit(alienBlock, 0), api.EINVAL},
		"alien release":    {q.Release(alienBlock, 0), api.EINVAL},
		"alien pool":       {q.Alloc(alienPool, api.AllocOptions{}, 0), api.EINVAL},
		"no pool":          {q.PutMblock(nil, api.AllocOptions{}, b[0], 0), api.EINVAL},
		"put, no buffer":   {q.PutMblock(s.p, api.AllocOptions{}, nil, 0), api.EINVAL},
		"busy, put":        {q.PutMblock(s.p, api.AllocOptions{}, fb[0], 0), api.EBUSY},
		"full, alloc":      {full.Alloc(s.p, api.AllocOptions{}, 0), api.EAGAIN},
		"full, commit":     {full.Commit(s.fresh, 0), api.EAGAIN},
		"full, release":    {full.Release(s.fresh, 0), api.EAGAIN},
		"closed, put":      {closed.PutMblock(s.p, api.AllocOptions{}, b[0], 0), api.EBADF},
		"length below":     {b[0].SetLen(-1), api.EINVAL},
		"length above":     {b[0].SetLen(page + 1), api.EINVAL},
		"size below":       {second(s.c.Borrow(ctx, 0)), api.EINVAL},
		"size above":       {second(s.c.Borrow(ctx, MaxBuffer+1)), api.EINVAL},
		"no room":          {second(s.c.Borrow(ctx, 512<<20)), api.EAGAIN},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if q.Flight() != 0 || gone.Bytes() != nil {
		t.Errorf("%d are under way, %d bytes", q.Flight(), len(gone.Bytes()))
	}
	// A buffer that is released under an operation is nobody else's until that
	// has ended.
	if err := fb[0].Release(); err != nil {
		t.Error(err)
	}
	next := must(s.c.Borrow(ctx, page))
	if next.region.first == fb[0].region.first && next.region.arena == fb[0].region.arena {
		t.Error("memory in use was given away")
	}
	s.f.withholdThose(nil)
	s.f.letGo(all)
	full.reapAll(t)
	again := must(s.c.Borrow(ctx, page))
	if again.region.first != fb[0].region.first {
		t.Error("memory was not given back")
	}
	if err := errors.Join(next.Release(), again.Release()); err != nil {
		t.Error(err)
	}
}

// A wait for completions ends with its context, and what was not reaped then is
// later; least 0 does not wait.
//
// proves S46
func TestQueueReapLater(t *testing.T) {
	s := newRingScene(t)
	q, b := s.newQueue(4, 4, page)
	s.f.withholdThose(all)
	for i := range 3 {
		if err := q.Read(s.old, b[i], 0, uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	q.Submit()
	s.f.withheld(3)
	out := make([]Completion, 4)
	if n, err := q.Reap(t.Context(), 0, out); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	s.f.letGo(func(d *ring.Descriptor) bool { return slotOf(d.Tag) == 0 })
	eventually(t, "one answer is there", q.end.Ready)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := q.Reap(ctx, 2, out); n != 1 || !errors.Is(err, api.ETIMEDOUT) {
		t.Errorf("%d, %v", n, err)
	}
	cancelled, cancel2 := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel2)
	if n, err := q.Reap(cancelled, 1, out); n != 0 || !errors.Is(err, api.ECANCELED) {
		t.Errorf("%d, %v", n, err)
	}
	s.f.letGo(all)
	s.f.withholdThose(nil)
	if n := len(q.reapAll(t)); n != 2 {
		t.Errorf("%d were left", n)
	}
	if n, err := q.Reap(t.Context(), 1, out); n != 0 || err != nil {
		t.Errorf("with nothing under way: %d, %v", n, err)
	}
}

// When the connection breaks all that a queue has under way is completed, once,
// with what is known of it; what was answered before is answered.
//
// proves S36
func TestQueueLost(t *testing.T) {
	for _, closes := range []bool{false, true} {
		s := newRingScene(t)
		q, b := s.newQueue(16, 8, page)
		m := must(s.p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 1 << 20}))
		s.f.withholdThose(func(d *ring.Descriptor) bool { return slotOf(d.Tag) != 0 })
		for i, err := range []error{
			q.Read(s.old, b[0], 0, 0), q.Read(s.old, b[1], 0, 1), q.Write(m, b[2], 2), q.Append(s.app, b[3], true, 3), q.Sync(s.app, 4),
		} {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		q.Submit()
		s.f.withheld(4)
		for !q.end.Ready() {
			time.Sleep(time.Millisecond)
		}
		if closes {
			if err := s.c.Close(); err != nil {
				t.Error(err)
			}
		} else {
			l := s.c.current.Load()
			s.f.drop(true)
			s.c.broken(l)
		}
		seen := map[uint64]bool{}
		out := make([]Completion, 2)
		for q.Flight() > 0 {
			n, err := q.Reap(t.Context(), 1, out)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			for _, c := range out[:n] {
				if seen[c.User] {
					t.Errorf("%d was completed twice", c.User)
				}
				seen[c.User] = true
				if want := []string{"ok", "ECONNRESET", "ECONNRESET", "EUNKNOWN 2", "EUNKNOWN 2"}[c.User]; !fits(c.Err, want) {
					t.Errorf("%d: %v, want %s", c.User, c.Err, want)
				}
			}
		}
		if !bytes.Equal(b[0].Bytes(), s.data[:page]) {
			t.Error("other bytes")
		}
		if err := q.Read(s.old, b[0], 0, 0); !errors.Is(err, api.EBADF) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// A write that fails, after which another was given, leaves an mblock that can
// only be aborted; the last one that is refused leaves it as it was.
//
// proves S11
func TestQueueWriteFails(t *testing.T) {
	for _, last := range []bool{false, true} {
		s := newRingScene(t)
		q, b := s.newQueue(4, 2, page)
		m := must(s.p.AllocMblock(t.Context(), api.AllocOptions{Capacity: 1 << 20}))
		n := 0
		s.f.mu.Lock()
		s.f.refuse = func(op ioctl.Op) error {
			if n++; op == ioctl.OpMblockWrite && (n == 2) == last {
				return api.EAGAIN
			}
			return nil
		}
		s.f.mu.Unlock()
		if err := errors.Join(q.Write(m, b[0], 0), q.Write(m, b[1], 1)); err != nil {
			t.Fatal(err)
		}
		q.reapAll(t)
		s.f.mu.Lock()
		s.f.refuse = nil
		s.f.mu.Unlock()
		if err := m.Commit(t.Context()); last != (err == nil) {
			t.Errorf("last %v: commit: %v", last, err)
		}
	}
}

// Random work on a queue whose daemon answers in any order and fails some:
// each operation is completed once, with its own bytes.
func TestQueueRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	s := newRingScene(t)
	const depth = 32
	q, b := s.newQueue(depth, depth, 2*page)
	s.f.mu.Lock()
	s.f.withhold = func(*ring.Descriptor) bool { return rand.IntN(2) == 0 }
	s.f.refuse = func(op ioctl.Op) error {
		if op == ioctl.OpMblockRead && rand.IntN(7) == 0 {
			return api.EIO
		}
		return nil
	}
	s.f.mu.Unlock()
	stop := make(chan struct{})
	var releaser sync.WaitGroup
	releaser.Go(func() {
		for {
			s.f.letGo(all)
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	})
	at := make([]int, depth)
	var idle []int
	for i := range depth {
		idle = append(idle, i)
	}
	out := make([]Completion, depth)
	for range 3000 {
		for len(idle) > 0 && rng.IntN(4) != 0 {
			i := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			at[i] = rng.IntN(len(s.data) - 2*page)
			if err := errors.Join(b[i].SetLen(rng.IntN(2*page+1)), q.Read(s.old, b[i], int64(at[i]), uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
		q.Submit()
		n, err := q.Reap(t.Context(), rng.IntN(2), out[:rng.IntN(depth)+1])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range out[:n] {
			i := int(c.User)
			idle = append(idle, i)
			if c.Err != nil && !errors.Is(c.Err, api.EIO) {
				t.Fatal(c.Err)
			}
			if c.Err == nil && !bytes.Equal(b[i].Bytes(), s.data[at[i]:at[i]+b[i].Len()]) {
				t.Fatalf("other bytes at %d", at[i])
			}
		}
	}
	q.reapAll(t)
	close(stop)
	releaser.Wait()
}

// A queue's operations allocate nothing, and a blocking read little.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := newRingScene(t)
	ctx := t.Context()
	s.c.ringed(t)
	q, b := s.newQueue(8, 4, page)
	out := make([]Completion, 8)
	s.f.mu.Lock()
	var c ring.Completion // the daemon's allocations would count
	s.f.instead = func(r *fakeRing, d *ring.Descriptor) {
		c = ring.Completion{Tag: d.Tag, Op: d.Op, N: d.Length}
		r.d.Complete(&c)
		r.d.Notify()
	}
	s.f.mu.Unlock()
	per := map[string]float64{
		"queue": testing.AllocsPerRun(2000, func() {
			for i := range 3 {
				if q.Read(s.old, b[i], 0, uint64(i)) != nil {
					t.Fail()
				}
			}
			if q.Append(s.app, b[3], true, 3) != nil {
				t.Fail()
			}
			q.Submit()
			if n, err := q.Reap(ctx, 4, out); n != 4 || err != nil {
				t.Fail()
			}
		}),
		"read": testing.AllocsPerRun(2000, func() {
			// A context that can end is watched by who sleeps, which allocates.
			if err := second(s.old.ReadAt(out2[:], 0)); err != nil {
				t.Fail()
			}
		}),
	}
	s.f.mu.Lock()
	s.f.instead = nil
	s.f.mu.Unlock()
	t.Log(fmt.Sprint(per))
	if per["queue"] != 0 || per["read"] > 2 {
		t.Errorf("%v", per)
	}
}

var out2 [page]byte
