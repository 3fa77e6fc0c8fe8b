package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// Every operation that there is has a kind, and those that wait for each other
// or for events have no places.
func TestEveryOperationHasAKind(t *testing.T) {
	waits := map[ioctl.Op]bool{
		ioctl.OpHello: true, ioctl.OpCancel: true, ioctl.OpEventNext: true, ioctl.OpRingClose: true,
		ioctl.OpPoolCreate: true, ioctl.OpPoolActivate: true, ioctl.OpPoolDeactivate: true, ioctl.OpPoolDestroy: true,
		ioctl.OpPoolRename: true, ioctl.OpPoolSet: true, ioctl.OpCredit: true, ioctl.OpCreditRevoke: true,
	}
	for op := range ioctl.Op(ioctl.NumOps) {
		if !op.Valid() {
			continue
		}
		if k, _ := kindOf(op, op.NewRequest()); (k == unscheduled) != waits[op] {
			t.Errorf("%v is of kind %d", op, k)
		}
	}
	for _, x := range []struct {
		m     ioctl.Message
		kind  kind
		bytes int64
	}{
		{&ioctl.AppendRecord{Sync: true, Data: ioctl.InlinePayload(make([]byte, 7))}, durable, 7},
		{&ioctl.AppendRecord{Data: ioctl.InlinePayload(make([]byte, 7))}, bulk, 7},
		{&ioctl.MblockRead{Into: ioctl.Window{Arena: 1, Length: 1<<32 - 1}}, bulk, maxTurnBytes},
	} {
		op := ioctl.OpAppend
		if _, ok := x.m.(*ioctl.MblockRead); ok {
			op = ioctl.OpMblockRead
		}
		if k, n := kindOf(op, x.m); k != x.kind || n != x.bytes {
			t.Errorf("%+v is of kind %d with %d bytes", x.m, k, n)
		}
	}
}

// course is a lane with processes that ask again and again.
type course struct {
	t     *testing.T
	lane  lane
	of    map[*task]*runner
	most  int   // that ran at one time
	bytes int64 // that were moved at one time, at most
}

// runner is a process that keeps so many tasks of so many bytes waiting or
// running.
type runner struct {
	queue queue
	tasks int
	size  int64
	begun int
}

func newCourse(t *testing.T, places int, maxBytes int64) *course {
	return &course{t: t, lane: lane{places: places, maxBytes: maxBytes, slice: time.Hour}, of: map[*task]*runner{}}
}

func (c *course) ask(r *runner, n int) {
	for range n {
		t := &task{kind: bulk, size: r.size}
		c.of[t] = r
		c.lane.wait(&r.queue, t)
	}
}

// begin begins what can begin.
func (c *course) begin() {
	for t := c.lane.pick(); t != nil; t = c.lane.pick() {
		c.of[t].begun++
	}
	c.most, c.bytes = max(c.most, c.lane.running.n), max(c.bytes, c.lane.bytes)
}

// end ends the oldest turn, whose process asks again, and begins what can begin.
func (c *course) end() *runner {
	t := c.lane.running.first
	c.lane.leave(t)
	r := c.of[t]
	delete(c.of, t)
	c.ask(r, 1)
	c.begin()
	return r
}

// proves S42: a hundred processes that have 64 reads each under way at all times
// delay one that asks for no more than its share by one turn.
func TestModestIsNext(t *testing.T) {
	c := newCourse(t, 16, 8<<20)
	for range 100 {
		c.ask(&runner{size: 4096}, 64)
	}
	c.begin()
	for range 1000 {
		c.end()
	}
	modest := &runner{size: 4096}
	for i := range 200 {
		c.ask(modest, 1)
		turns := 0
		for c.begin(); modest.begun == i; turns++ {
			c.end()
		}
		if turns > 1 {
			t.Fatalf("read %d began after %d turns of others", i, turns)
		}
		// It ends, and its client asks again when the others have had a turn each.
		for left := 101; left > 0; left-- {
			x := c.lane.running.first
			c.lane.leave(x)
			if c.of[x] != modest {
				c.ask(c.of[x], 1)
			}
			delete(c.of, x)
			c.begin()
		}
	}
	if c.most > 16 {
		t.Errorf("%d ran at one time", c.most)
	}
}

// proves S42: among processes that always want more, each begins as many bytes
// as the others, up to one request, whether its requests are large or small, few
// or many.
func TestEqualTurns(t *testing.T) {
	c := newCourse(t, 16, 8<<20)
	list := []*runner{
		{size: 4096, tasks: 64}, {size: 4096, tasks: 1000}, {size: 64 << 10, tasks: 64}, {size: 1 << 20, tasks: 64}, {size: 0, tasks: 64},
	}
	for _, r := range list {
		c.ask(r, r.tasks)
	}
	c.begin()
	for range 100_000 {
		c.end()
	}
	cost := func(r *runner) int64 { return int64(r.begun) * (turnCost + r.size) }
	for _, r := range list {
		if d := cost(r) - cost(list[0]); max(d, -d) > turnCost+1<<20+turnCost+saved {
			t.Errorf("requests of %d bytes, %d at one time, had %d bytes; those of 4096 had %d", r.size, r.tasks, cost(r), cost(list[0]))
		}
	}
	if c.most > 16 || c.bytes > 8<<20 {
		t.Errorf("%d ran at one time, with %d bytes", c.most, c.bytes)
	}
}

// A request larger than all that may be moved at one time runs, alone, and has its
// share among small ones.
func TestLargeTurns(t *testing.T) {
	c := newCourse(t, 16, 1<<20)
	large := &runner{size: maxTurnBytes}
	c.ask(large, 10)
	c.begin()
	for range 50 {
		if c.lane.running.n != 1 {
			t.Fatalf("%d run", c.lane.running.n)
		}
		c.end()
	}
	small := &runner{size: 4096}
	c.ask(small, 1000)
	for large.begun < 60 {
		c.end()
	}
	if most := 12 * (maxTurnBytes + turnCost) / (turnCost + 4096); small.begun > most {
		t.Errorf("%d small ones while 10 large ones ran; %d are as many bytes", small.begun, most)
	}
}

// newFair returns turns with one place of each kind.
func newFair(slice time.Duration) *fair {
	f := &fair{}
	f.init(nil, 1)
	for k := range f.lanes {
		f.lanes[k].places, f.lanes[k].slice = 1, slice
	}
	return f
}

func newTask(k kind, do func()) *task {
	return &task{kind: k, do: do, ctx: context.Background()}
}

// proves S42: requests that hang do not hold up others of their kind for longer
// than their slice each, nor those of other kinds; nor does one that waits for
// another that waits for its place.
func TestPlacesAreLent(t *testing.T) {
	f := newFair(time.Millisecond)
	a, b := f.join(1), f.join(2)
	hang := make(chan struct{})
	var wg sync.WaitGroup
	submit := func(fl *flow, k kind, do func()) {
		wg.Add(1)
		f.submit(fl, newTask(k, func() { do(); wg.Done() }))
	}
	for range 20 {
		submit(a, bulk, func() { <-hang })
	}
	done := make(chan struct{}, 4)
	submit(b, quick, func() { done <- struct{}{} })
	submit(b, durable, func() { done <- struct{}{} })
	submit(b, bulk, func() { done <- struct{}{} })
	waited := make(chan struct{})
	submit(b, durable, func() { <-waited; done <- struct{}{} })
	submit(a, durable, func() { close(waited) })
	for range 4 {
		select {
		case <-done:
		case <-time.After(daemon.Patience):
			t.Fatal("a request is held up")
		}
	}
	close(hang)
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.lanes {
		if l := &f.lanes[k]; l.running.n != 0 || l.bytes != 0 {
			t.Errorf("of kind %d %d still run, with %d bytes", k, l.running.n, l.bytes)
		}
	}
}

// proves S46: a request that waits for its turn leaves when its context ends,
// exactly once either way.
func TestWaitersLeave(t *testing.T) {
	f := newFair(time.Hour)
	fl := f.join(1)
	hold := make(chan struct{})
	f.submit(fl, newTask(bulk, func() { <-hold }))
	ctx, cancel := context.WithCancel(context.Background())
	var did, quit atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		x := newTask(bulk, func() { did.Add(1); wg.Done() })
		x.quit = func() { quit.Add(1); wg.Done() }
		if i%2 == 0 {
			x.ctx = ctx
		}
		wg.Add(1)
		f.submit(fl, x)
	}
	cancel()
	daemon.Eventually(t, "who waits leaves", func() bool { return quit.Load() == 100 })
	close(hold)
	wg.Wait()
	if did.Load() != 100 || quit.Load() != 100 {
		t.Errorf("%d ran, %d left", did.Load(), quit.Load())
	}
}

// proves S42 S46: who waits in a goroutine of his own has his turn until he ends
// it, and none if his context ends before.
func TestTurn(t *testing.T) {
	f := newFair(time.Hour)
	fl := f.join(1)
	end, err := f.turn(context.Background(), fl, bulk, 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.turn(ctx, fl, bulk, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a turn without a place: %v", err)
	}
	begun := make(chan func())
	go func() {
		end, err := f.turn(context.Background(), fl, bulk, 1)
		if err != nil {
			t.Error(err)
		}
		begun <- end
	}()
	daemon.Eventually(t, "one waits", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.lanes[bulk].waiting) == 1
	})
	select {
	case <-begun:
		t.Error("two have the only place")
	default:
	}
	end()
	(<-begun)()
}

// proves S43: whatever comes and goes at once, each request runs or leaves
// exactly once, and no more run than there are places.
func TestTurnsAtOnce(t *testing.T) {
	f := &fair{}
	f.init(nil, 2)
	for k := range f.lanes {
		f.lanes[k].slice = time.Hour
	}
	var running [kinds]atomic.Int64
	var ended atomic.Int64
	var wg, all sync.WaitGroup
	const each = 300
	for p := range int32(8) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(p)))
			fl := f.join(p % 4)
			f.entered(fl)
			for range each {
				ctx, cancel := context.WithCancel(context.Background())
				x := &task{kind: kind(rng.IntN(int(kinds))), size: rng.Int64N(maxTurnBytes), ctx: ctx}
				early := rng.IntN(3) == 0
				var once atomic.Bool
				over := func() {
					if once.Swap(true) {
						t.Error("a request has ended twice")
					}
					ended.Add(1)
					all.Done()
				}
				x.do = func() {
					if n := running[x.kind].Add(1); x.kind != unscheduled && n > int64(f.lanes[x.kind].places) {
						t.Errorf("%d of kind %d run at one time", n, x.kind)
					}
					running[x.kind].Add(-1)
					if early {
						f.end(x)
					}
					cancel()
					over()
				}
				x.quit = over
				all.Add(1)
				f.submit(fl, x)
				if rng.IntN(4) == 0 {
					cancel()
				}
			}
			f.leave(fl)
		})
	}
	wg.Wait()
	all.Wait()
	if ended.Load() != 8*each {
		t.Errorf("%d ended", ended.Load())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.flows) != 0 {
		t.Errorf("%d processes are remembered", len(f.flows))
	}
}

// proves S43: what a process costs beside its requests is a share of a
// processor, after what it has saved up, whatever it does; others wait for
// nothing of it.
func TestPace(t *testing.T) {
	now := time.Unix(1, 0)
	var p, other pace
	spent, began := time.Duration(0), now
	for range 100_000 {
		wait := p.spend(now, sessionCost)
		spent += sessionCost
		now = now.Add(wait)
		if most := paceSaved + now.Sub(began)/paceShare + sessionCost; spent > most {
			t.Fatalf("%v spent after %v", spent, now.Sub(began))
		}
		if other.spend(now, messageCost) != 0 {
			t.Fatal("one that does little has to wait")
		}
	}
	if p.full(now) || !p.full(now.Add(paceSaved*paceShare)) {
		t.Error("what was spent is not saved again")
	}
	p.spend(now.Add(-time.Hour), messageCost) // a clock that goes back
	f := &fair{}
	f.init(nil, 1)
	for pid := range int32(10 * maxGone) {
		fl := f.join(pid)
		f.spend(fl, paceSaved)
		f.leave(fl)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.flows) > maxGone {
		t.Errorf("%d processes that are gone are remembered", len(f.flows))
	}
}

// proves S43: of one process no more sessions wait to be let in than may.
func TestComing(t *testing.T) {
	f := newFair(time.Hour)
	var in []*flow
	for len(in) < maxComing {
		in = append(in, f.join(1))
	}
	if f.join(1) != nil || f.join(2) == nil {
		t.Error("the bound is not each process's own")
	}
	f.entered(in[0])
	if f.join(1) == nil {
		t.Error("there is room again")
	}
}
