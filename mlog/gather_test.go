package mlog

import (
	"errors"
	"testing"
	"time"

	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// round begins n appends, each a moment after the one before, and waits until all
// are told.
func round(l *Log, s *sched.Sched, n int, apart time.Duration) error {
	x := newCalls(s, n)
	for range n {
		if _, err := l.BeginAppend(x.done, make([]byte, 100)); err != nil {
			return err
		}
		if apart > 0 {
			if err := s.Sleep(bg, apart); err != nil {
				return err
			}
		}
	}
	if err := x.end.Wait(bg); err != nil {
		return err
	}
	return errors.Join(x.errs...)
}

// Appends that come one after another share a group, as those did that came
// before them: not the first of them alone, and the others after it.
func TestBegunAppendsAreGathered(t *testing.T) {
	const rounds, n = 40, 16
	for seed := range seeds(20) {
		r := simRig(t, seed, 3000)
		var groups uint64
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			for range rounds {
				err := round(l, s, n, 5*time.Microsecond)
				if err == nil {
					err = s.Sleep(bg, 50*time.Microsecond)
				}
				if err != nil {
					return err
				}
			}
			groups = l.Stats().Groups
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if groups > rounds*9/5 { // without, two a round
			t.Errorf("seed %d: %d groups for %d rounds of %d appends", seed, groups, rounds, n)
		}
	}
}

// Tasks that come one after another once a group has woken them share the next one.
func TestTasksAreGathered(t *testing.T) {
	const rounds, n = 40, 16
	for seed := range seeds(20) {
		r := simRig(t, seed, 3000)
		var groups uint64
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			x := newCalls(s, n)
			for i := range n {
				s.Go("appender", func() {
					var err error
					for range rounds {
						_, failed := l.AppendSync(bg, make([]byte, 100))
						err = errors.Join(err, failed, s.Sleep(bg, time.Duration(i)*5*time.Microsecond))
					}
					x.done(err)
				})
			}
			if err := x.end.Wait(bg); err != nil {
				return err
			}
			groups = l.Stats().Groups
			return errors.Join(errors.Join(x.errs...), l.Close(bg))
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		t.Logf("seed %d: %d groups", seed, groups)
		if groups > rounds*9/5 { // without, two a round
			t.Errorf("seed %d: %d groups for %d rounds of %d appends", seed, groups, rounds, n)
		}
	}
}

// Many who are told at once and do not come back are soon waited for no more.
func TestWaitsThatDoNotPayAreGivenUp(t *testing.T) {
	given, n := uint64(0), uint64(10)
	for seed := range n {
		r := simRig(t, seed, 3000)
		err := inWorld(r.disk, r.c, seed, sim.OpenOptions{}, func(c Config, s *sched.Sched) error {
			l, err := Open(bg, c)
			if err != nil {
				return err
			}
			for range 200 {
				err := round(l, s, 12, 0)
				if err == nil {
					err = s.Sleep(bg, time.Millisecond)
				}
				if err == nil {
					err = round(l, s, 1, 0)
				}
				if err != nil {
					return err
				}
			}
			g := &l.w.gather
			if c.Writers != nil {
				g = &c.Writers.gather
			}
			if g.missed >= 4 {
				given++
			}
			return l.Close(bg)
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	// By chance two come together where two were told.
	if given <= n/2 {
		t.Errorf("in %d of %d runs nobody is waited for any more", given, n)
	}
}
