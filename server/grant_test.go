package server

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// testClock is what grants go by in a test.
type testClock struct{ ahead atomic.Int64 }

func (c *testClock) now() time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(c.ahead.Load()))
}

func (c *testClock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func (c *testClock) use(o *Options) { o.now = c.now }

func grantOf(w *raw, h ioctl.Handle, ttl time.Duration) (api.Token, error) {
	reply, err := w.ask(ioctl.OpGrant, &ioctl.Grant{Object: h, TTL: ttl})
	if err != nil {
		return api.Token{}, err
	}
	return reply.(*ioctl.Granted).Token, nil
}

func acceptBy(w *raw, pool ioctl.Handle, t api.Token) (*ioctl.Opened, error) {
	reply, err := w.ask(ioctl.OpAccept, &ioctl.Accept{Pool: pool, Token: t})
	if err != nil {
		return nil, err
	}
	return reply.(*ioctl.Opened), nil
}

// What was written by one process is handed over, completed, committed and read by
// another; to the giver the handle is stale, and to everybody the token is used up.
//
// proves S35 S31 S11
func TestHandOver(t *testing.T) {
	for name, rig := range map[string]func(*testing.T) *rig{
		"fake": func(t *testing.T) *rig { return newRig(t) }, "engine": newEngineRig,
	} {
		t.Run(name, func(t *testing.T) {
			r := rig(t)
			ctx := context.Background()
			giver, taker := r.open(r.dial()), r.open(r.dial())
			first, rest := bytes.Repeat([]byte{1}, 2*4096), bytes.Repeat([]byte{2}, 5000)
			b := must[api.Mblock](t)(giver.AllocMblock(ctx, api.AllocOptions{Capacity: 1 << 20, Tag: 7}))
			must[int](t)(b.Write(ctx, first))
			token := must[api.Token](t)(b.Grant(ctx, time.Minute))
			_, err := taker.Mblock(ctx, b.ID())
			want(t, api.ENOENT, err) // it is the giver's yet
			must[int](t)(b.Write(ctx, first))
			got := must[api.Object](t)(taker.Accept(ctx, token))
			m, ok := got.(api.Mblock)
			if !ok || m.ID() != b.ID() {
				t.Fatalf("%T %v is not the mblock %v", got, got.ID(), b.ID())
			}
			info := must[api.ObjectInfo](t)(m.Info(ctx))
			if info.Length != int64(2*len(first)) || info.Refs != 1 || info.State != api.StateUncommitted || info.Tag != 7 {
				t.Errorf("it was handed over as %+v", info)
			}
			_, err = b.Write(ctx, first)
			want(t, api.EBADF, err)
			want(t, api.EBADF, b.Commit(ctx))
			want(t, api.EBADF, b.Put())
			_, err = b.Grant(ctx, time.Minute)
			want(t, api.EBADF, err)
			_, err = giver.Mblock(ctx, b.ID())
			want(t, api.ENOENT, err)
			for _, p := range []api.Pool{giver, taker} {
				_, err = p.Accept(ctx, token)
				want(t, api.ENOENT, err)
			}
			must[int](t)(m.Write(ctx, rest))
			if err := errors.Join(giver.Close(), m.Commit(ctx)); err != nil {
				t.Fatal(err)
			}
			all := append(append(bytes.Clone(first), first...), rest...)
			read := make([]byte, len(all))
			if n, err := m.ReadAt(read, 0); n != len(all) || !bytes.Equal(read, all) {
				t.Errorf("%d bytes, %v; or other bytes", n, err)
			}
			if err := m.Delete(ctx); err != nil {
				t.Error(err)
			}
			handOverLog(t, r)
		})
	}
}

func handOverLog(t *testing.T, r *rig) {
	t.Helper()
	ctx := context.Background()
	giver, taker := r.open(r.dial()), r.open(r.dial())
	l := must[api.Mlog](t)(giver.AllocMlog(ctx, api.AllocOptions{Capacity: 1 << 20}))
	got := must[api.Object](t)(taker.Accept(ctx, must[api.Token](t)(l.Grant(ctx, time.Minute))))
	m, ok := got.(api.Mlog)
	if !ok {
		t.Fatalf("a log is handed over as %T", got)
	}
	if err := errors.Join(m.Commit(ctx), m.Delete(ctx)); err != nil {
		t.Error(err)
	}
}

// What cannot be granted or accepted is refused with the reason, and nothing is
// changed; a token that is good for nothing is ENOENT, whyever.
//
// proves S35 S31
func TestGrantsRefused(t *testing.T) {
	for name, rig := range map[string]func(*testing.T) *rig{
		"fake": func(t *testing.T) *rig { return newRig(t) }, "engine": newEngineRig,
	} {
		t.Run(name, func(t *testing.T) {
			r := rig(t)
			w, other := r.raw(), r.raw()
			pool, at := w.openPool(), other.openPool()
			o := api.AllocOptions{Capacity: 64 << 10}
			b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: o})
			for _, ttl := range []time.Duration{-1, 0, api.MinGrant - 1, api.MaxGrant + 1, 1<<63 - 1} {
				_, err := grantOf(w, b, ttl)
				want(t, api.EINVAL, err)
			}
			_, err := acceptBy(other, at, api.Token{})
			want(t, api.ENOENT, err)
			w.ok(ioctl.OpRevoke, &ioctl.Target{Handle: b}) // of none

			// Another handle keeps it, whenever it is opened.
			more := w.opened(ioctl.OpObjectGet, &ioctl.Target{Handle: b})
			_, err = grantOf(w, b, time.Minute)
			want(t, api.EBUSY, err)
			w.ok(ioctl.OpClose, &ioctl.Target{Handle: more})
			token := must[api.Token](t)(grantOf(w, b, time.Minute))
			more = w.opened(ioctl.OpObjectGet, &ioctl.Target{Handle: b})
			_, err = acceptBy(other, at, token)
			want(t, api.EBUSY, err)
			w.ok(ioctl.OpClose, &ioctl.Target{Handle: more})
			for i := range token {
				near := token
				near[i] ^= 1
				_, err = acceptBy(other, at, near)
				want(t, api.ENOENT, err)
			}

			// Another grant ends the first, and each of the giver's ways to end it does.
			second := must[api.Token](t)(grantOf(w, b, time.Minute))
			_, err = acceptBy(other, at, token)
			want(t, api.ENOENT, err)
			w.ok(ioctl.OpRevoke, &ioctl.Target{Handle: b})
			_, err = acceptBy(other, at, second)
			want(t, api.ENOENT, err)
			for _, end := range []ioctl.Op{ioctl.OpObjectCommit, ioctl.OpObjectAbort, ioctl.OpClose} {
				h := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: o})
				token := must[api.Token](t)(grantOf(w, h, time.Minute))
				w.ok(end, &ioctl.Target{Handle: h})
				_, err = acceptBy(other, at, token)
				want(t, api.ENOENT, err)
				if end == ioctl.OpObjectCommit {
					_, err = grantOf(w, h, time.Minute)
					want(t, api.ESTATE, err)
				}
			}

			// Accepted by the giver itself, it has a new handle.
			token = must[api.Token](t)(grantOf(w, b, time.Minute))
			mine := must[*ioctl.Opened](t)(acceptBy(w, pool, token))
			_, err = w.ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: b})
			want(t, api.EBADF, err)
			w.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: mine.Handle})
		})
	}
}

// A token is good in its own pool only, and for who may write that.
//
// proves S35 S44
func TestGrantOfAnotherPool(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	if _, err := r.srv.CreatePool(ctx, "other", []string{"/dev/other"}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	p, q := r.open(c), must[api.Pool](t)(c.OpenPool(ctx, "other"))
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	token := must[api.Token](t)(b.Grant(ctx, time.Minute))
	_, err := q.Accept(ctx, token)
	want(t, api.ENOENT, err)
	if err := must[api.Object](t)(p.Accept(ctx, token)).Abort(ctx); err != nil {
		t.Error(err)
	}
}

// A grant ends with its time.
//
// proves S35
func TestGrantExpires(t *testing.T) {
	var clock testClock
	r := newRig(t, clock.use)
	w, other := r.raw(), r.raw()
	pool, at := w.openPool(), other.openPool()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
	token := must[api.Token](t)(grantOf(w, b, time.Second))
	clock.advance(time.Second)
	_, err := acceptBy(other, at, token)
	want(t, api.ENOENT, err)
	w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: b}) // the giver's as before
	token = must[api.Token](t)(grantOf(w, b, time.Second))
	clock.advance(time.Second - 1)
	must[*ioctl.Opened](t)(acceptBy(other, at, token))
}

// A session has a bound on what it grants at one time, and so has a pool; what has
// ended does not count.
//
// proves S35 S43
func TestGrantLimits(t *testing.T) {
	var clock testClock
	r := newRig(t, clock.use)
	var tokens []api.Token
	fill := func() *raw {
		w := r.raw()
		pool := w.openPool()
		var h ioctl.Handle
		for range maxGrantsSession {
			h = w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
			tokens = append(tokens, must[api.Token](t)(grantOf(w, h, time.Minute)))
		}
		must[api.Token](t)(grantOf(w, h, time.Minute)) // in place of its own
		one := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
		_, err := grantOf(w, one, time.Minute)
		want(t, api.EAGAIN, err)
		return w
	}
	first := fill()
	for range maxGrants/maxGrantsSession - 1 {
		fill()
	}
	w := r.raw()
	pool := w.openPool()
	one := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
	_, err := grantOf(w, one, time.Minute)
	want(t, api.EAGAIN, err)
	must[*ioctl.Opened](t)(acceptBy(w, pool, tokens[len(tokens)-2]))
	must[api.Token](t)(grantOf(w, one, time.Minute))
	_, err = grantOf(w, w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool}), time.Minute)
	want(t, api.EAGAIN, err)
	first.conn.Close()
	r.nextReaped(1)
	must[api.Token](t)(grantOf(w, w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool}), time.Minute))
	clock.advance(time.Minute)
	must[api.Token](t)(grantOf(w, one, time.Minute))
	a := must[*activePool](t)(r.srv.pools.get("data"))
	a.mu.Lock()
	defer a.mu.Unlock()
	if gs := &a.grants; len(gs.byToken) != 1 || len(gs.byObject) != 1 || len(gs.ends) != 1 || len(gs.bySession) != 1 {
		t.Errorf("one grant is kept as %d, %d, %d, %d", len(gs.byToken), len(gs.byObject), len(gs.ends), len(gs.bySession))
	}
}

// A session that has as many handles as it may takes nothing over, and the giver
// has all that it had.
//
// proves S31 S35 S41
func TestAcceptWithoutHandles(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.Handles = 2 })
	w, other := r.raw(), r.raw()
	pool, at := w.openPool(), other.openPool()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool})
	token := must[api.Token](t)(grantOf(w, b, time.Minute))
	full := other.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: at})
	_, err := acceptBy(other, at, token)
	want(t, api.ENOMEM, err)
	w.ok(ioctl.OpObjectInfo, &ioctl.Target{Handle: b})
	other.ok(ioctl.OpObjectAbort, &ioctl.Target{Handle: full})
	must[*ioctl.Opened](t)(acceptBy(other, at, token))
}

// A handle list says what is granted.
func TestGrantedIsListed(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	p := r.open(c)
	ctx := context.Background()
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{}))
	granted := func() (n int) {
		for h, err := range c.Handles(ctx, "data", 0) {
			if err != nil {
				t.Fatal(err)
			}
			if h.Granted {
				n++
			}
		}
		return n
	}
	must[api.Token](t)(b.Grant(ctx, time.Minute))
	if n := granted(); n != 1 {
		t.Errorf("%d handles are granted, want 1", n)
	}
	if err := b.Revoke(ctx); err != nil {
		t.Error(err)
	}
	if n := granted(); n != 0 {
		t.Errorf("%d handles are granted after their end", n)
	}
}

// Of all who accept at the same time at most one gets the object, whatever its
// giver does meanwhile, and whoever dies: it is exactly one session's or gone, and
// in the end nothing is left.
//
// proves S35 S33 S31
func TestHandOverRaces(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 35))
	r := newEngineRig(t)
	for round := range 150 {
		raceHandOver(t, r, rng, round)
	}
}

// giverEnds are what the giver may do while others accept; each says whether the
// object is nobody's to accept when it has succeeded.
var giverEnds = []struct {
	name string
	do   func(ctx context.Context, c *client.Conn, b api.Mblock) error
	ends bool
}{
	{"nothing", func(context.Context, *client.Conn, api.Mblock) error { return nil }, false},
	{"close", func(_ context.Context, c *client.Conn, _ api.Mblock) error { return c.Close() }, false},
	{"commit", func(ctx context.Context, _ *client.Conn, b api.Mblock) error { return b.Commit(ctx) }, true},
	{"abort", func(ctx context.Context, _ *client.Conn, b api.Mblock) error { return b.Abort(ctx) }, true},
	{"put", func(_ context.Context, _ *client.Conn, b api.Mblock) error { return b.Put() }, true},
	{"revoke", func(ctx context.Context, _ *client.Conn, b api.Mblock) error { return b.Revoke(ctx) }, true},
	{"write", func(ctx context.Context, _ *client.Conn, b api.Mblock) error {
		_, err := b.Write(ctx, make([]byte, 4096))
		return err
	}, false},
}

func raceHandOver(t *testing.T, r *rig, rng *rand.Rand, round int) {
	t.Helper()
	ctx := context.Background()
	end := giverEnds[rng.IntN(len(giverEnds))]
	giver := r.dial()
	p := r.open(giver)
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 64 << 10}))
	token := must[api.Token](t)(b.Grant(ctx, time.Minute))
	takers := make([]*client.Conn, 1+rng.IntN(3))
	got := make([]api.Object, len(takers))
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range takers {
		takers[i] = r.dial()
		q, dies := r.open(takers[i]), rng.IntN(3) == 0
		wg.Go(func() {
			<-begin
			o, err := q.Accept(ctx, token)
			switch {
			case err == nil:
				got[i] = o
			case !errors.Is(err, api.ENOENT) && !errors.Is(err, api.EBUSY):
				t.Errorf("round %d, %s: accept: %v", round, end.name, err)
			}
			if dies {
				takers[i].Close()
			}
		})
	}
	var did error
	wg.Go(func() {
		<-begin
		did = end.do(ctx, giver, b)
	})
	close(begin)
	wg.Wait()
	n := 0
	for _, o := range got {
		if o == nil {
			continue
		}
		n++
		// It is whole, unless its session was closed.
		if info, err := o.Info(ctx); err == nil && (info.Refs != 1 || info.State != api.StateUncommitted) {
			t.Errorf("round %d, %s: taken over as %+v", round, end.name, info)
		}
	}
	switch {
	case n > 1:
		t.Errorf("round %d, %s: %d took it over", round, end.name, n)
	case n == 1 && did == nil && end.ends:
		t.Errorf("round %d: taken over although its giver's %s has succeeded", round, end.name)
	case n == 0 && end.name == "nothing":
		t.Errorf("round %d: nobody took it over", round)
	}
	giver.Close()
	for _, c := range takers {
		c.Close()
	}
	a := must[*activePool](t)(r.srv.pools.get("data"))
	settled(t, r, a, b.ID())
}

// settled waits until all sessions have ended, and checks that nothing is left of
// them but a committed object.
func settled(t *testing.T, r *rig, a *activePool, id layout.ObjectID) {
	t.Helper()
	for end := time.Now().Add(inVain); len(r.srv.all()) > 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("sessions do not end")
		}
	}
	info, err := a.pool.Describe(context.Background(), id)
	if err == nil && (info.State != api.StateCommitted || info.Refs != 0) {
		t.Errorf("%v is left as %+v", id, info)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if gs := &a.grants; len(gs.byToken)+len(gs.byObject)+len(gs.ends)+len(gs.bySession) != 0 {
		t.Errorf("grants are left: %+v", gs)
	}
	if n := len(a.adopters) + len(a.own) + len(a.orphaned); n != 0 || a.orphans.Load() != 0 || a.handles.Load() != 0 {
		t.Errorf("left: %d entries, %d orphans, %d handles", n, a.orphans.Load(), a.handles.Load())
	}
}
