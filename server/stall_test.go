package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/ioctl/ring"
	"github.com/mpool-go/mpool/uhandle"
)

// Every operation but those that the reader does has a handler, and the numbers between
// them none.
func TestHandlersAreComplete(t *testing.T) {
	for op := range ioctl.Op(ioctl.NumOps) {
		want := op.Valid() && op != ioctl.OpHello && op != ioctl.OpCancel && op != ioctl.OpCredit
		if got := handlers[op].run != nil; got != want {
			t.Errorf("%v has a handler: %v, want %v", op, got, want)
		}
	}
}

// stalled lets operations of the pool wait until their context ends, and longer
// if deaf, and returns what lets them go on.
func (r *rig) stalled(deaf bool, which func(op string) bool) (goOn func()) {
	hold := make(chan struct{})
	r.b.deaf(deaf)
	r.b.hook(func(ctx context.Context, op string) error {
		if !which(op) {
			return nil
		}
		if deaf {
			<-hold
			return nil
		}
		select {
		case <-ctx.Done():
		case <-hold:
		}
		return nil
	})
	return sync.OnceFunc(func() { close(hold) })
}

// hurried is a context whose first parts, as Shutdown shares it out, are short,
// and the others as long as they may need to be.
type hurried struct {
	context.Context
	parts int32
	asked atomic.Int32
}

func (h *hurried) Deadline() (time.Time, bool) {
	// To make a context of another one asks once more.
	if h.asked.Add(1) <= 2*h.parts {
		return time.Now().Add(200 * time.Millisecond), true
	}
	return time.Now().Add(inVain), true
}

// Every operation on a pool whose drive is stalled is answered when its deadline
// has passed, those that outlive their session as well, and what was not done
// is not done later.
//
// proves S46
func TestEveryDeadline(t *testing.T) {
	r, _ := newScopeRig(t, nil)
	w := r.raw()
	handles := w.one()
	table := takers()
	asks := map[ioctl.Op]ioctl.Message{
		ioctl.OpPoolShow: &ioctl.PoolShow{Name: "data"}, ioctl.OpStat: &ioctl.StatAsk{Pool: "data"},
		ioctl.OpPoolCreate:     &ioctl.PoolCreate{Name: "x", Devices: []string{"/dev/x"}},
		ioctl.OpPoolActivate:   &ioctl.PoolActivate{Name: "x"},
		ioctl.OpPoolDeactivate: &ioctl.PoolName{Name: "x"}, ioctl.OpPoolDestroy: &ioctl.PoolName{Name: "x"},
		ioctl.OpPoolRename: &ioctl.PoolRename{Name: "data", NewName: "y"},
		ioctl.OpPoolSet:    &ioctl.PoolSet{Name: "data"}, ioctl.OpPoolList: &ioctl.PoolName{},
		ioctl.OpPoolScrub: &ioctl.PoolScrub{Name: "data", Bytes: 1},
		ioctl.OpPoolOpen:  &ioctl.PoolName{Name: "data"}, ioctl.OpVersion: &ioctl.Empty{},
		ioctl.OpArena: &ioctl.ArenaAsk{}, ioctl.OpArenaMapped: &ioctl.ArenaMapped{Arena: 1},
		ioctl.OpRing: &ioctl.RingAsk{Version: ring.Version, Arena: 1, Entries: 8}, ioctl.OpRingClose: &ioctl.RingClose{Ring: 1},
		ioctl.OpScopeList: &ioctl.ScopesAsk{}, ioctl.OpScopeSet: &ioctl.ScopeSet{Name: "client"},
		ioctl.OpClientList: &ioctl.ClientList{}, ioctl.OpHandleList: &ioctl.HandlesAsk{},
		ioctl.OpCreditList: &ioctl.CreditList{Pool: "data"},
		ioctl.OpEventNext:  &ioctl.EventNext{After: 1, Wait: ioctl.MaxEventWait},
	}
	// A list is of what is in memory: a pool does not wait for a drive there.
	goOn := r.stalled(false, func(op string) bool { return op != "object list" })
	defer goOn()
	timedOut := 0
	for op := range ioctl.Op(ioctl.NumOps) {
		if handlers[op].run == nil || op == ioctl.OpClose || op == ioctl.OpArena {
			continue
		}
		m := asks[op]
		if taker, ok := table[op]; m == nil && ok {
			m = taker.m(handles[taker.kinds[0]])
		}
		if m == nil {
			t.Errorf("%v is not tested", op)
			continue
		}
		w.tag++
		w.send(ioctl.Header{Op: op, Tag: w.tag, Deadline: 20}, m)
		_, err := w.answer(op, w.tag)
		if errors.Is(err, api.ETIMEDOUT) {
			timedOut++
		} else if code := api.CodeOf(err); !slices.Contains([]api.Code{0, api.ENOENT, api.EINVAL, api.EUNKNOWN, api.EBUSY, api.ENOTSUP}, code) {
			t.Errorf("%v: %v", op, err)
		}
	}
	if timedOut < 20 {
		t.Errorf("only %d operations came to the pool and timed out", timedOut)
	}
	goOn()
	// It stands as it stood.
	if p := r.named("x"); p != nil {
		t.Error("a pool was made too late")
	}
	for kind, h := range handles {
		if kind != kindMlog && kind != kindPool {
			w.ok(ioctl.OpClose, &ioctl.Target{Handle: h})
		}
	}
}

// A request waits for another on the same reader no longer than its deadline,
// and the reader can be closed meanwhile.
//
// proves S46
func TestTurns(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	handles := w.one()
	entered := make(chan struct{}, 2)
	goOn := r.stalled(true, func(op string) bool {
		if op != "read next" && op != "object list" {
			return false
		}
		entered <- struct{}{}
		return true
	})
	defer goOn()
	for kind, op := range map[uhandle.Kind]ioctl.Op{kindReader: ioctl.OpReadNext, kindList: ioctl.OpListNext} {
		m := takers()[op].m(handles[kind])
		w.send(ioctl.Header{Op: op, Tag: 1000 + uint64(op)}, m)
		<-entered
		w.send(ioctl.Header{Op: op, Tag: 2000 + uint64(op), Deadline: 30}, m)
		_, err := w.answer(op, 2000+uint64(op))
		want(t, api.ETIMEDOUT, err)
		w.ok(ioctl.OpClose, &ioctl.Target{Handle: handles[kind]})
		_, err = w.ask(ioctl.OpClose, &ioctl.Target{Handle: handles[kind]})
		want(t, api.EBADF, err)
	}
	goOn()
	for range 2 {
		if h, _, err := w.recv(); err != nil || h.Tag/1000 != 1 {
			t.Errorf("%+v, %v", h, err)
		}
	}
	r.eventually("the reader is closed", func(p *fakePool) bool { return p.closers == 2 })
}

// While a drive of one pool is stalled the daemon lists, shows, reaps and serves
// all the rest, and stops in its time with the other pools closed cleanly.
//
// proves S42
func TestStalledDrive(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	c := r.dial()
	must[api.CreateResult](t)(c.CreatePool(ctx, "other", []string{"/dev/other"}, api.CreateOptions{Mode: 0o666}))
	p := must[api.Pool](t)(c.OpenPool(ctx, "other"))
	w := r.raw()
	pool := w.openPool()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	l := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: l})
	w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: l})
	w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: pool, Options: api.AllocOptions{Capacity: 1 << 20}})
	goOn := r.stalled(true, func(op string) bool {
		return op == "mblock write" || op == "appender close" || op == "object commit record"
	})
	defer goOn()
	// All its slots wait for the drive.
	for i := range DefaultLimits().Requests {
		w.send(ioctl.Header{Op: ioctl.OpMblockWrite, Tag: uint64(5000 + i)},
			&ioctl.MblockWrite{Mblock: b, Data: ioctl.InlinePayload([]byte("x"))})
	}
	serves := func() {
		t.Helper()
		short, cancel := context.WithTimeout(ctx, inVain)
		defer cancel()
		if infos, err := c.Pools(short); err != nil || len(infos) != 2 {
			t.Errorf("pools: %+v, %v", infos, err)
		}
		if _, err := c.Clients(short, 0); err != nil {
			t.Error(err)
		}
		for _, err := range c.Handles(short, "data", 0) {
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := c.Stat(short, "data"); err != nil {
			t.Error(err)
		}
		m := must[api.Mlog](t)(p.AllocMlog(short, api.AllocOptions{Capacity: 1}))
		if err := m.Abort(short); err != nil {
			t.Error(err)
		}
		stalled := must[api.Pool](t)(c.OpenPool(short, "data"))
		if err := stalled.Close(); err != nil {
			t.Error(err)
		}
	}
	serves()
	w.conn.Close()
	e := r.nextReaped(1)
	// What no request uses is given back at once.
	if e.Aborted != 1 || e.References != 5 || !strings.Contains(e.Text, "1 of its logs") {
		t.Errorf("%+v", e)
	}
	serves()
	// Its time is up when the other pool is closed, as far as it can tell before.
	up, timeUp := context.WithCancel(ctx)
	defer timeUp()
	stopped := make(chan error, 1)
	go func() { stopped <- r.srv.Shutdown(&hurried{Context: up, parts: 2}) }()
	until(t, "the pool without a stalled drive is closed", func() bool {
		other := r.named("other")
		other.mu.Lock()
		defer other.mu.Unlock()
		return !other.active
	})
	timeUp()
	if err := <-stopped; err == nil {
		t.Error("stopped, with a drive that is stalled")
	}
	r.checkClean(r.named("other"))
	goOn()
	r.srv.wg.Wait()
	r.eventually("nothing is held", func(p *fakePool) bool {
		for _, o := range p.objects {
			if o.refs != 0 {
				return false
			}
		}
		return p.closers == 0
	})
}

// A client that does not read what it is answered does not keep the daemon from
// stopping.
//
// proves S42
func TestStopsWithClientWhoDoesNotRead(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	if err := w.conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	// Answered by the reader itself, until nothing goes in any more.
	b := message(t, ioctl.OpVersion, 9, &ioctl.Empty{})
	b[4] = 95
	for {
		if _, err := w.conn.Write(b); err != nil {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), inVain)
	defer cancel()
	if err := r.srv.Shutdown(&hurried{Context: ctx, parts: 1}); err != nil {
		t.Error(err)
	}
}

// What an administrator gives up waiting for comes to its end, and the daemon
// knows of it.
//
// proves S46
func TestChoresGoOn(t *testing.T) {
	r := newRig(t)
	w := r.raw()
	begun := make(chan struct{}, 2)
	goOn := r.stalled(true, func(op string) bool {
		if op != "pool activate" && op != "pool destroy" {
			return false
		}
		begun <- struct{}{}
		return true
	})
	defer goOn()
	givesUp := func(op ioctl.Op, m ioctl.Message) {
		t.Helper()
		w.tag++
		w.send(ioctl.Header{Op: op, Tag: w.tag}, m)
		<-begun
		w.send(ioctl.Header{Op: ioctl.OpCancel}, &ioctl.Cancel{Tag: w.tag})
		_, err := w.answer(op, w.tag)
		want(t, api.EUNKNOWN, err)
	}
	ask := func(op ioctl.Op, m ioctl.Message, code api.Code) {
		t.Helper()
		_, err := w.ask(op, m)
		want(t, code, err)
	}
	givesUp(ioctl.OpPoolCreate, &ioctl.PoolCreate{Name: "new", Devices: []string{"/dev/new"}})
	ask(ioctl.OpPoolCreate, &ioctl.PoolCreate{Name: "new", Devices: []string{"/dev/new"}}, api.EEXIST)
	givesUp(ioctl.OpPoolDestroy, &ioctl.PoolName{Name: "data"})
	ask(ioctl.OpPoolDestroy, &ioctl.PoolName{Name: "data"}, api.EBUSY)
	ask(ioctl.OpPoolOpen, &ioctl.PoolName{Name: "data"}, api.EBUSY)
	goOn()
	for names := []string(nil); !slices.Equal(names, []string{"new"}); time.Sleep(time.Millisecond) {
		list, ok := w.ok(ioctl.OpPoolList, &ioctl.PoolName{}).(*ioctl.PoolListReply)
		if !ok {
			t.Fatal("no list")
		}
		names = list.Names
	}
}

// A session that has lost its client is listed until its last request has ended: a
// client that comes back looks only then what became of its commit.
//
// proves S36
func TestListedUntilItsCommitIsOver(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	c := r.dial()
	w := r.raw()
	b := w.opened(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1}})
	began := make(chan struct{}, 1)
	hold := make(chan struct{})
	r.b.hook(func(_ context.Context, op string) error {
		if strings.HasSuffix(op, "commit") {
			began <- struct{}{}
			<-hold
		}
		return nil
	})
	w.send(ioctl.Header{Op: ioctl.OpObjectCommit, Tag: 77}, &ioctl.Target{Handle: b})
	<-began
	w.conn.Close()
	r.nextReaped(1)
	listed := func() bool {
		return len(must[[]client.ClientInfo](t)(c.Clients(ctx, 0))) == 2
	}
	if !listed() {
		t.Error("its commit is under way, and it is not listed")
	}
	close(hold)
	for end := time.Now().Add(inVain); listed(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its commit is over, and it is listed")
		}
	}
}
