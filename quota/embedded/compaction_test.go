package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/sched"
)

// spanned notes at which boundaries of a disk the first compaction begins and ends.
type spanned struct {
	api.MDC
	seen       func() uint64
	begin, end uint64
}

func (c *spanned) CompactStart(ctx context.Context) error {
	if c.begin == 0 {
		c.begin = c.seen() + 1
	}
	return c.MDC.CompactStart(ctx)
}

func (c *spanned) CompactEnd(ctx context.Context) error {
	err := c.MDC.CompactEnd(ctx)
	if err == nil && c.end == 0 {
		c.end = c.seen()
	}
	return err
}

// proves G22, G24, G27
//
// The power fails, or the process dies, at each write, flush and read of a compaction,
// while four claimants work: the records are those after some change, and of none that
// comes before the last that was acknowledged; and another compaction comes through
// after it (at every eighth).
func TestCrashInsideCompaction(t *testing.T) {
	for seed := range (*seeds + 2) / 3 {
		disk, h := almostFull(t, seed)
		run := func(at uint64) (*spanned, *sim.Disk, *history, error) {
			d := disk.Clone()
			h := &history{states: slices.Clone(h.states), acked: h.acked}
			c, err := span(sched.New(1_000_000*(seed+1)), d, h, at, 40)
			return c, d, h, err
		}
		whole, _, _, err := run(0)
		if err != nil || whole.end == 0 {
			t.Fatalf("seed %d: a compaction of boundaries %d to %d, %v", seed, whole.begin, whole.end, err)
		}
		for at := whole.begin; at <= whole.end+2; at++ {
			_, disk, h, err := run(at)
			if err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, at, err)
			}
			rng := rand.New(rand.NewPCG(seed, at))
			if at%4 == 0 {
				disk.Kill(rng)
			} else {
				disk.PowerCut(rng, sim.CutOptions{})
			}
			ops, want := 1, false
			if at%8 == 0 {
				ops, want = 160, true
			}
			again, err := span(sched.New(1_000_000*(seed+1)+at), disk, h, 0, ops)
			if err != nil || want && again.end == 0 {
				t.Fatalf("seed %d, cut at %d of %d to %d: %v; compacted after it: %v", seed, at, whole.begin, whole.end, err, again.end > 0)
			}
		}
		t.Logf("seed %d: cut at %d to %d", seed, whole.begin, whole.end+2)
	}
}

// span runs a life that is cut at a boundary, or not, and notes its first compaction.
func span(s *sched.Sched, disk *sim.Disk, h *history, at uint64, ops int) (*spanned, error) {
	cutter := &sim.Cutter{Sched: s, At: at}
	c := &spanned{seen: cutter.Seen}
	var failed error
	err := s.Run(func() {
		failed = lifeOn(s, disk, sim.OpenOptions{OnIO: cutter.OnIO}, h, ops, func(mdc api.MDC) api.MDC { c.MDC = mdc; return c })
	})
	if errors.Is(err, sched.ErrCut) {
		err = nil
	}
	return c, errors.Join(err, failed)
}

// almostFull makes a store whose log will soon be compacted.
func almostFull(t *testing.T, seed uint64) (*sim.Disk, *history) {
	t.Helper()
	disk, h := newDisk(t, sched.New(seed)), &history{}
	for n := uint64(0); ; n++ {
		next := disk.Clone()
		after := &history{states: slices.Clone(h.states), acked: h.acked}
		c, err := span(sched.New(1000*(seed+1)+n), next, after, 0, 5)
		switch {
		case err != nil:
			t.Fatal(err)
		case c.begin > 0:
			return disk, h
		}
		disk, h = next, after
	}
}

// noSpare has no other log to compact into.
type noSpare struct{ api.MDC }

func (noSpare) CompactStart(context.Context) error {
	return api.Errorf(api.ENOSPC, "mdc compact", "no space for the other log")
}

// A claim is taken only if its end, and those of all others, have room: each can be
// released in a change of its own, under the longest request id, though half of the log
// no longer counts and no compaction makes room.
func TestEndsHaveRoom(t *testing.T) {
	disk := newDisk(t, nil)
	var c noSpare
	p, s, err := openOn(nil, disk, sim.OpenOptions{}, 128<<10, embedded.Options{}, func(mdc api.MDC) api.MDC { c.MDC = mdc; return c })
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		t.Fatal(err)
	}
	for used, capacity := c.Usage(); used < capacity/2; used, _ = c.Usage() {
		if err := l.SetLimit(bg, quota.OwnerLimit{Owner: "a", Class: "x", Limit: quota.Unlimited}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []quota.ID
	for {
		c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}})
		if errors.Is(err, quota.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	if len(ids) < 50 {
		t.Errorf("full with %d claims", len(ids))
	}
	for i, id := range ids {
		if _, err := l.Release(bg, quota.ByID(id), fmt.Sprintf("%0*d", quota.MaxName, i)); err != nil {
			t.Fatalf("release %d of %d: %v", i, len(ids), err)
		}
	}
	if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// weighed adds up what is appended, and counts compactions.
type weighed struct {
	api.MDC
	bytes, ends int64
}

func (w *weighed) Append(ctx context.Context, record []byte, sync bool) error {
	err := w.MDC.Append(ctx, record, sync)
	if err == nil {
		w.bytes += int64(len(record))
	}
	return err
}

func (w *weighed) CompactEnd(ctx context.Context) error {
	w.ends++
	return w.MDC.CompactEnd(ctx)
}

// Records, with the room for their ends, take three fifths of the log and no more: more
// than half of it is used, and each compaction makes room for a fifth of the log, so
// that what a change costs is bounded; of large claims and of small ones.
func TestCompactionsArePaidFor(t *testing.T) {
	for _, classes := range []int{40, 1} {
		disk := newDisk(t, nil)
		w := &weighed{}
		p, s, err := openOn(nil, disk, sim.OpenOptions{}, 256<<10, embedded.Options{}, func(mdc api.MDC) api.MDC { w.MDC = mdc; return w })
		if err != nil {
			t.Fatal(err)
		}
		_, capacity := w.Usage()
		l := quota.New(s, quota.Options{})
		all := wide(t, l)[:classes]
		var ids []quota.ID
		for {
			c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: all})
			if errors.Is(err, quota.ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, c.ID)
		}
		full := (w.bytes + int64(len(ids))*(quota.MaxName+40)) * 100 / capacity
		if full < 50 || full > 61 {
			t.Errorf("%d classes: full with %d%% of the log", classes, full)
		}
		before, compactions := w.bytes, w.ends
		for i := range 6000 / classes {
			if _, err := l.Release(bg, quota.ByID(ids[i%len(ids)]), ""); err != nil {
				t.Fatal(err)
			}
			c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: all})
			if err != nil {
				t.Fatal(err)
			}
			ids[i%len(ids)] = c.ID
		}
		appended, n := w.bytes-before, w.ends-compactions
		if n < 2 || appended/n < capacity/5 {
			t.Errorf("%d classes: %d compactions for %d bytes in a log of %d", classes, n, appended, capacity)
		}
		if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// stalled writes no record of a compaction as long as its context lasts.
type stalled struct {
	api.MDC
	begun chan struct{}
}

func (c *stalled) CompactAppend(ctx context.Context, _ []byte) error {
	close(c.begun)
	<-ctx.Done()
	return ctx.Err()
}

// A compaction ends with its store: Close does not wait for one on a drive that stalls,
// and what was there before is there after it.
func TestCloseGivesUpCompaction(t *testing.T) {
	ctx, cancel := context.WithTimeout(bg, 3*time.Minute) // of a test that fails
	defer cancel()
	disk := newDisk(t, nil)
	c := &stalled{begun: make(chan struct{})}
	p, s, err := openOn(nil, disk, sim.OpenOptions{}, 64<<10, embedded.Options{}, func(mdc api.MDC) api.MDC { c.MDC = mdc; return c })
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{})
	if err := l.Define(ctx, quota.NewClass("x", quota.Count)); err != nil {
		t.Fatal(err)
	}
	begun := false
	for i := 0; !begun; i++ {
		if err := l.SetLimit(ctx, quota.OwnerLimit{Owner: "a", Class: "x", Limit: quota.Limit(i)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-c.begun:
			begun = true
		default:
		}
	}
	var before, after string
	if err := s.View(ctx, func(r quota.Reader) { before = dump(r) }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(ctx), p.Close()); err != nil {
		t.Fatal(err)
	}
	if p, s, err = open(nil, disk, sim.OpenOptions{}, 0, embedded.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.View(ctx, func(r quota.Reader) { after = dump(r) }); err != nil || after != before {
		t.Errorf("%v; there was\n%s\nthere is\n%s", err, before, after)
	}
	if err := errors.Join(s.Verify(), s.Close(ctx), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// closing closes the store some time after its first compaction has begun.
type closing struct {
	api.MDC
	s      *sched.Sched
	after  time.Duration
	st     *embedded.Store
	begun  bool
	ended  bool // the first compaction, before it was closed
	inside bool // it was closed before that
	closed sched.Completion
	err    error
}

func (c *closing) CompactStart(ctx context.Context) error {
	if !c.begun {
		c.begun = true
		c.s.Go("close", func() {
			defer c.closed.Done()
			if c.err = c.s.Sleep(bg, c.after); c.err == nil {
				c.inside = !c.ended
				c.err = c.st.Close(bg)
			}
		})
	}
	return c.MDC.CompactStart(ctx)
}

func (c *closing) CompactEnd(ctx context.Context) error {
	err := c.MDC.CompactEnd(ctx)
	c.ended = true
	return err
}

// proves G22, G24: whenever a store is closed while its log is compacted, all that was
// done before is there when it is opened again.
func TestCloseInsideCompaction(t *testing.T) {
	inside := 0
	for seed := range 2 * *seeds {
		s := sched.New(seed + 1)
		disk := newDisk(t, s)
		c := &closing{s: s, after: time.Duration(s.Rand().Int64N(int64(3 * time.Millisecond)))}
		var failed error
		err := s.Run(func() { failed = closeInside(s, disk, c) })
		if failed != nil || err != nil {
			t.Fatalf("seed %d: %v, %v", seed, failed, err)
		}
		if c.inside {
			inside++
		}
	}
	if inside == 0 {
		t.Error("no compaction was under way")
	}
	t.Logf("%d of %d inside", inside, 2**seeds)
}

func closeInside(s *sched.Sched, disk *sim.Disk, c *closing) error {
	c.closed.Init(s)
	var last string
	opt := embedded.Options{Changed: func(r quota.Reader, _ []quota.Change) { last = dump(r) }}
	p, st, err := openOn(s, disk, sim.OpenOptions{}, 16<<10, opt, func(mdc api.MDC) api.MDC { c.MDC = mdc; return c })
	if err != nil {
		return err
	}
	c.st = st
	l := quota.New(st, quota.Options{Now: s.Now, Sleep: s.Sleep, Jitter: func(d time.Duration) time.Duration { return d }})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		return err
	}
	err = crowd(s, 3, func(n int) error {
		for ; n < 1000; n += 3 {
			if err := comeAndGo(l, s.Rand(), n); errors.Is(err, api.EBADF) {
				return nil
			} else if err != nil {
				return fmt.Errorf("claimant %d: %w", n, err)
			}
		}
		return errors.New("it was not closed")
	})
	if err := errors.Join(err, c.closed.Wait(bg), c.err, p.Close()); err != nil {
		return err
	}
	before := last
	if p, st, err = open(s, disk, sim.OpenOptions{}, 0, opt); err != nil {
		return err
	}
	if last != before {
		return fmt.Errorf("closed %v after the begin of a compaction with\n%s\nthere is\n%s", c.after, before, last)
	}
	return errors.Join(st.Verify(), st.Close(bg), p.Close())
}

// Changes that no ledger sends are refused before they are written; the store goes on,
// and is opened again.
func TestChangesThatNoLedgerSends(t *testing.T) {
	disk := newDisk(t, nil)
	p, s, err := open(nil, disk, sim.OpenOptions{}, 64<<10, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", quota.MaxName+1)
	claim := func(c quota.Claim) quota.Change { return quota.PutClaim{Claim: &c} }
	one := []quota.Amount{{Class: "x", N: 1}}
	for i, bad := range []quota.Change{
		nil,
		quota.DropClass{Name: long},
		quota.DropLimit{Owner: long},
		quota.PutLimit{Limit: quota.OwnerLimit{Owner: "nobody", Class: "x"}},
		quota.PutOwner{Owner: quota.Owner{Name: "a", Parent: "nobody"}},
		quota.DropClaim{ID: 1, Request: quota.Request{ID: long}},
		claim(quota.Claim{ID: 1, Owner: "nobody", State: quota.Held, Real: "r", Amounts: one}),
		claim(quota.Claim{ID: 1, Owner: "a", State: quota.Held, Real: long, Amounts: one}),
		claim(quota.Claim{ID: 1, Owner: "a", State: quota.Held, Real: "r", Amounts: make([]quota.Amount, 300)}),
	} {
		var g quota.Generation
		if err := s.View(bg, func(r quota.Reader) { g = r.Generation() }); err != nil {
			t.Fatal(err)
		}
		good := []quota.Change{
			quota.PutClass{Class: quota.NewClass("x", quota.Count)},
			quota.PutOwner{Owner: quota.Owner{Name: "a"}},
		}
		if err := s.Apply(bg, g, append(good, bad)); err == nil || errors.Is(err, quota.ErrUnknown) {
			t.Errorf("change %d, %T: %v", i, bad, err)
		}
		if err := s.View(bg, func(r quota.Reader) {
			if text := dump(r); text != "" {
				t.Errorf("change %d, %T: there is\n%s", i, bad, text)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	l := quota.New(s, quota.Options{})
	if err := errors.Join(l.Define(bg, quota.NewClass("x", quota.Count)), s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
	if p, s, err = open(nil, disk, sim.OpenOptions{}, 0, embedded.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}
