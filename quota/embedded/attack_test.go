package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/quota"
	"github.com/mpool-go/mpool/quota/embedded"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/test/quotatest"
)

// proves G24: a request is remembered whose claim ends while the log is compacted.
func TestRequestsOutliveCompactions(t *testing.T) {
	for seed := range uint64(2) {
		s := sched.New(seed)
		disk := newDisk(t, s)
		var failed error
		if err := s.Run(func() { failed = requestsOutlive(s, disk) }); failed != nil || err != nil {
			t.Fatalf("seed %d: %v, %v", seed, failed, err)
		}
	}
}

func requestsOutlive(s *sched.Sched, disk *sim.Disk) error {
	p, st, err := open(s, disk, sim.OpenOptions{}, 48<<10, embedded.Options{})
	if err != nil {
		return err
	}
	l := quota.New(st, quota.Options{Now: s.Now, Sleep: s.Sleep, Jitter: func(d time.Duration) time.Duration { return d }})
	if err := l.Define(bg, quota.NewClass("x", quota.Count)); err != nil {
		return err
	}
	if err := crowd(s, 4, func(n int) error { return comeAndGo(l, s.Rand(), n) }); err != nil {
		return err
	}
	var before []quota.Request
	look := func(r quota.Reader) { before = ended(r) }
	if err := errors.Join(st.View(bg, look), st.Verify(), st.Close(bg), p.Close()); err != nil {
		return err
	}
	if p, st, err = open(s, disk, sim.OpenOptions{}, 48<<10, embedded.Options{}); err != nil {
		return err
	}
	for _, r := range before[len(before)-10:] {
		if err := st.View(bg, func(b quota.Reader) {
			if again, _, ok := b.Request(r.ID); !ok || again != r {
				failed := fmt.Errorf("request %s is forgotten", r.ID)
				err = errors.Join(err, failed)
			}
		}); err != nil {
			return err
		}
	}
	return errors.Join(err, st.Verify(), st.Close(bg), p.Close())
}

// comeAndGo makes claims under request ids and releases them in some order.
func comeAndGo(l *quota.Ledger, rng *rand.Rand, n int) error {
	var mine []quota.ID
	for i := range 60 {
		c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: []quota.Amount{{Class: "x", N: 1}}, Request: fmt.Sprintf("%d-%d", n, i)})
		if err != nil {
			return err
		}
		if mine = append(mine, c.ID); len(mine) < 6 {
			continue
		}
		k := rng.IntN(len(mine))
		if _, err := l.Release(bg, quota.ByID(mine[k]), ""); err != nil {
			return err
		}
		mine = append(mine[:k], mine[k+1:]...)
	}
	return nil
}

// crowd runs so many tasks and waits for them.
func crowd(s *sched.Sched, tasks int, f func(n int) error) error {
	var done sched.Completion
	done.Init(s)
	left := tasks
	var failed error
	for n := range tasks {
		s.Go("one of many", func() {
			failed = errors.Join(failed, f(n))
			if left--; left == 0 {
				done.Done()
			}
		})
	}
	return errors.Join(done.Wait(bg), failed)
}

// ended are the requests of claims that have ended, the oldest first.
func ended(r quota.Reader) []quota.Request { return r.(interface{ Ended() []quota.Request }).Ended() }

// wide defines 64 classes of long names, and returns one of each.
func wide(t *testing.T, l *quota.Ledger) (all []quota.Amount) {
	t.Helper()
	for i := range quota.MaxAmounts {
		name := fmt.Sprintf("%s%02d", strings.Repeat("n", 200), i)
		if err := l.Define(bg, quota.NewClass(name, quota.Count)); err != nil {
			t.Fatal(err)
		}
		all = append(all, quota.Amount{Class: name, N: 1})
	}
	return all
}

// A change for which no compaction makes room is refused, and what ends claims still
// works; it is not tried for ever.
func TestChangeLargerThanRoom(t *testing.T) {
	ctx, cancel := context.WithTimeout(bg, time.Minute) // of a test that fails
	defer cancel()
	disk := newDisk(t, nil)
	p, s, err := open(nil, disk, sim.OpenOptions{}, 128<<10, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{})
	all := wide(t, l)
	root, err := l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: all})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = l.Reserve(ctx, quota.Ask{Owner: "a", Amounts: all, Parent: root.ID})
	}
	if !errors.Is(err, quota.ErrFull) {
		t.Fatal(err)
	}
	if _, err := l.Transfer(ctx, quota.ByID(root.ID), "b", ""); !errors.Is(err, quota.ErrFull) {
		t.Errorf("a record larger than what is left: %v", err)
	}
	list, err := l.Release(ctx, quota.ByID(root.ID), "")
	if err != nil || len(list) < 2 {
		t.Errorf("%d released, %v", len(list), err)
	}
	if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}

// Releases work however full the log is, and whoever else fills it; what is full of
// reservations whose time is over has room.
func TestReleasesOfACrowd(t *testing.T) {
	disk, clock := newDisk(t, nil), quotatest.NewClock()
	p, s, err := open(nil, disk, sim.OpenOptions{}, 96<<10, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := quota.New(s, quota.Options{Now: clock.Now})
	some := wide(t, l)[:20]
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 25 {
				c, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: some, Request: fmt.Sprintf("%d-%d", n, i)})
				if errors.Is(err, quota.ErrFull) {
					continue
				}
				if err == nil {
					_, err = l.Release(bg, quota.ByID(c.ID), fmt.Sprintf("%0200d-%d", n, i))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for err == nil {
		_, err = l.Reserve(bg, quota.Ask{Owner: "a", Amounts: some, TTL: time.Minute})
	}
	if !errors.Is(err, quota.ErrFull) {
		t.Error(err)
	}
	clock.Jump(time.Minute)
	if _, err := l.Reserve(bg, quota.Ask{Owner: "a", Amounts: some}); err != nil {
		t.Errorf("all others have expired: %v", err)
	}
	if list, err := l.Claims(bg, ""); err != nil || len(list) != 1 {
		t.Errorf("%d claims, %v", len(list), err)
	}
	if err := errors.Join(s.Verify(), s.Close(bg), p.Close()); err != nil {
		t.Fatal(err)
	}
}
