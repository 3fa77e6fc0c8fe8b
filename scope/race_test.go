package scope

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// worker does what clients do, on scopes that others use too.
type worker struct {
	m   *Manager
	rnd *rand.Rand
	top []*Scope // services and users
	bad []error
}

func (w *worker) run(steps int) {
	for range steps {
		if err := w.client(); err != nil && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrClosed) {
			w.bad = append(w.bad, err)
		}
	}
}

// client opens the scope of a client that others may have open, and moves and uses it.
func (w *worker) client() (err error) {
	pick := func() *Scope { return w.top[w.rnd.IntN(len(w.top))] }
	c, err := w.m.Open(fmt.Sprint("client:", w.rnd.IntN(12)), pick())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for range 4 {
		switch w.rnd.IntN(5) {
		case 0:
			a, b := pick(), pick()
			if a == b {
				b = w.m.System()
			}
			err = c.Move(a, b)
		case 1:
			if err = c.Reserve(Inbound, 1); err == nil {
				err = c.Release(Inbound, 1)
			}
			if errors.Is(err, ErrNotReserved) || errors.Is(err, ErrClosed) {
				err = nil // another closed it and opened it meanwhile: it was given back then
			}
		case 2:
			err = w.m.Set("client", Limits{Memory: Fixed(w.rnd.Int64N(3000))})
		default:
			err = w.span(c, 3)
		}
		if err != nil && !errors.Is(err, ErrLimit) {
			return err
		}
	}
	return nil
}

func (w *worker) span(c book, depth int) error {
	s, err := c.BeginSpan()
	if err != nil {
		return err
	}
	err = s.ReserveAll(uint8(w.rnd.Uint32()), Amount{Memory, w.rnd.Int64N(900)}, Amount{TasksLow, 1})
	if depth > 0 {
		err = errors.Join(err, w.span(s, depth-1))
	}
	if n := w.m.System().Used(Memory); n > 10000 || n < 0 {
		err = errors.Join(err, fmt.Errorf("the system uses %d", n))
	}
	if err := s.Done(); err != nil {
		return errors.New(err.Error()) // never closed by another
	}
	return err
}

// proves G2: 64 goroutines open, move, use and close the same scopes, are refused and
// change limits; no limit is passed meanwhile, and nothing is left in the end.
func TestRace(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(10000)}, "service": {Memory: Fixed(4000), Tasks: Fixed(20)}})
	var top []*Scope
	for i := range 4 {
		top = append(top, open(t, m, fmt.Sprint("service:", i)))
	}
	workers := make([]worker, 64)
	seed := rand.Uint64()
	t.Log("seed", seed)
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		*w = worker{m: m, rnd: rand.New(rand.NewPCG(seed, uint64(i))), top: top}
		wg.Go(func() { w.run(40) })
	}
	wg.Wait()
	for i := range workers {
		for _, err := range workers[i].bad {
			t.Error(err)
		}
	}
	wantEmpty(t, m)
	if n := len(m.List()) / NumKinds; n != 2+len(top) {
		t.Errorf("%d scopes are left", n)
	}
}
