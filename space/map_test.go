package space

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/sched"
)

// model is a drive as a plain list of zones.
type model struct {
	zones []State
	spare uint8
}

func (m *model) count(st State) (n uint32) {
	for _, z := range m.zones {
		if z == st {
			n++
		}
	}
	return n
}

func (m *model) keep() uint32 {
	return min(m.count(Free), (uint32(len(m.zones))-m.count(Overhead))*uint32(m.spare)/100)
}

// first returns the first run of n free zones.
func (m *model) first(n uint32) (start uint32, ok bool) {
	run := uint32(0)
	for i, z := range m.zones {
		if z != Free {
			run = 0
			continue
		}
		if run++; run == n {
			return uint32(i) + 1 - n, true
		}
	}
	return 0, false
}

func (m *model) longest() (n uint32) {
	run := uint32(0)
	for _, z := range m.zones {
		if z != Free {
			run = 0
			continue
		}
		run++
		n = max(n, run)
	}
	return n
}

func (m *model) set(r Run, st State) {
	for i := uint64(r.Start); i < r.end(); i++ {
		m.zones[i] = st
	}
}

func (m *model) all(r Run, st State) bool {
	for i := uint64(r.Start); i < r.end(); i++ {
		if m.zones[i] != st {
			return false
		}
	}
	return true
}

// runOf returns a run of zones of one state, or none.
func (m *model) runOf(t *rapid.T, st State) (Run, bool) {
	var starts []uint32
	for i, z := range m.zones {
		if z == st {
			starts = append(starts, uint32(i))
		}
	}
	if len(starts) == 0 {
		return Run{}, false
	}
	start := rapid.SampledFrom(starts).Draw(t, "start")
	end := start
	for end < uint32(len(m.zones)) && m.zones[end] == st {
		end++
	}
	return Run{start, rapid.Uint32Range(1, end-start).Draw(t, "count")}, true
}

// proves S7
func TestSpaceIsExactAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]uint32{0, 1, 63, 64, 65, 200, 1024, 3000}).Draw(t, "zones")
		spare := rapid.SampledFrom([]uint8{0, 5, 50, 100}).Draw(t, "spare")
		s := New(nil, size, spare)
		m := &model{zones: make([]State, size), spare: spare}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) { insert(t, s, m) },
			"alloc":  func(t *rapid.T) { alloc(t, s, m) },
			"commit": func(t *rapid.T) {
				if r, ok := m.runOf(t, Uncommitted); ok {
					s.Commit(r)
					m.set(r, Live)
				}
			},
			"drain": func(t *rapid.T) {
				from := rapid.SampledFrom([]State{Uncommitted, Live, Overhead}).Draw(t, "from")
				if r, ok := m.runOf(t, from); ok {
					s.Drain(r, from)
					m.set(r, Draining)
				}
			},
			"release": func(t *rapid.T) {
				if r, ok := m.runOf(t, Draining); ok {
					s.Release(r)
					m.set(r, Free)
				}
			},
			"return": func(t *rapid.T) {
				if r, ok := m.runOf(t, Uncommitted); ok {
					s.Return(r)
					m.set(r, Free)
				}
			},
			"set spare": func(t *rapid.T) {
				m.spare = rapid.Uint8Range(0, 100).Draw(t, "percent")
				s.SetSpare(m.spare)
			},
			"grow": func(t *rapid.T) {
				to := uint32(len(m.zones)) + rapid.Uint32Range(0, 200).Draw(t, "more")
				if err := s.Grow(to); err != nil {
					t.Fatalf("grow to %d: %v", to, err)
				}
				m.zones = append(m.zones, make([]State, to-uint32(len(m.zones)))...)
				if err := s.Grow(to - min(to, 1)); to > 0 && !errors.Is(err, ErrShrink) {
					t.Fatalf("shrink by one: %v", err)
				}
			},
			"": func(t *rapid.T) { compare(t, s, m) },
		})
	})
}

func insert(t *rapid.T, s *Map, m *model) {
	r := Run{
		Start: rapid.Uint32Range(0, uint32(len(m.zones))).Draw(t, "start"),
		Count: rapid.OneOf(rapid.Uint32Range(0, 70), rapid.Just(uint32(1<<32-1))).Draw(t, "count"),
	}
	st := rapid.SampledFrom([]State{Live, Overhead}).Draw(t, "state")
	err := s.Insert(r, st)
	switch {
	case r.Count == 0 || r.end() > uint64(len(m.zones)):
		if !errors.Is(err, ErrOutside) {
			t.Fatalf("insert %+v of %d: %v", r, len(m.zones), err)
		}
	case m.all(r, Free):
		if err != nil {
			t.Fatalf("insert %v: %v", r, err)
		}
		m.set(r, st)
	default:
		var e *OverlapError
		if !errors.As(err, &e) || !errors.Is(err, ErrOverlap) {
			t.Fatalf("insert %v: %v", r, err)
		}
		if !m.all(Run{r.Start, e.Zone - r.Start}, Free) || m.zones[e.Zone] == Free {
			t.Fatalf("insert %v: %v is not the first zone in use", r, e.Zone)
		}
		if e.State != Free && e.State != m.zones[e.Zone] {
			t.Fatalf("insert %v: zone %d is %v, not %v", r, e.Zone, m.zones[e.Zone], e.State)
		}
	}
}

func alloc(t *rapid.T, s *Map, m *model) {
	n := rapid.OneOf(rapid.Uint32Range(1, 5), rapid.Uint32Range(1, 300)).Draw(t, "count")
	useSpare := rapid.Bool().Draw(t, "use spare")
	may := m.count(Free)
	if !useSpare {
		may -= m.keep()
	}
	start, ok := m.first(n)
	ok = ok && n <= may
	r, err := s.Alloc(n, useSpare)
	if ok {
		if want := (Run{start, n}); err != nil || r != want {
			t.Fatalf("alloc %d: %v, %v; want %v", n, r, err, want)
		}
		m.set(r, Uncommitted)
		return
	}
	var e *NoSpaceError
	if !errors.As(err, &e) {
		t.Fatalf("alloc %d: %v, %v; want no space", n, r, err)
	}
	if want := (NoSpaceError{Free: may, Longest: min(may, m.longest())}); *e != want {
		t.Fatalf("alloc %d: %+v, want %+v", n, *e, want)
	}
}

func compare(t *rapid.T, s *Map, m *model) {
	u := s.Usage()
	want := Usage{
		Total: uint32(len(m.zones)), Free: m.count(Free) - m.keep(), Spare: m.keep(),
		Uncommitted: m.count(Uncommitted), Live: m.count(Live),
		Draining: m.count(Draining), Overhead: m.count(Overhead),
	}
	if u != want {
		t.Fatalf("usage %+v, want %+v", u, want)
	}
	if sum := u.Free + u.Uncommitted + u.Live + u.Draining + u.Spare + u.Overhead; sum != u.Total {
		t.Fatalf("%+v adds up to %d", u, sum)
	}
	if s.Longest() != m.longest() {
		t.Fatalf("longest %d, want %d", s.Longest(), m.longest())
	}
}

func TestLongestInWord(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	naive := func(v uint64) (n uint32) {
		run := uint32(0)
		for i := range 64 {
			if run++; v>>i&1 == 0 {
				run = 0
			}
			n = max(n, run)
		}
		return n
	}
	for range 100_000 {
		v := rng.Uint64() | rng.Uint64() | rng.Uint64()
		if longestIn(v) != naive(v) {
			t.Fatalf("longest in %064b: %d, want %d", v, longestIn(v), naive(v))
		}
	}
	for n := range 65 {
		for shift := range 65 - n {
			if v := (uint64(1)<<n - 1) << shift; longestIn(v) != uint32(n) {
				t.Fatalf("longest in %064b: %d, want %d", v, longestIn(v), n)
			}
		}
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestBrokenInvariantsPanic(t *testing.T) {
	m := New(nil, 100, 0)
	a, err := m.Alloc(10, false)
	if err != nil {
		t.Fatal(err)
	}
	mustPanic(t, "release of what is not draining", func() { m.Release(a) })
	mustPanic(t, "return of what is free", func() { m.Return(Run{50, 1}) })
	mustPanic(t, "drain of live zones that are uncommitted", func() { m.Drain(a, Live) })
	mustPanic(t, "drain of free zones", func() { m.Drain(Run{50, 1}, Uncommitted) })
	mustPanic(t, "drain from free", func() { m.Drain(a, Free) })
	mustPanic(t, "commit outside", func() { m.Commit(Run{95, 10}) })
	mustPanic(t, "commit of none", func() { m.Commit(Run{0, 0}) })
	mustPanic(t, "alloc of none", func() { _, _ = m.Alloc(0, false) })
	mustPanic(t, "insert uncommitted", func() { _ = m.Insert(Run{50, 1}, Uncommitted) })
	mustPanic(t, "spare", func() { m.SetSpare(101) })
	m.Drain(a, Uncommitted)
	m.Release(a)
	mustPanic(t, "release twice", func() { m.Release(a) })
	if u := m.Usage(); u.Free != 100 {
		t.Fatalf("a refused change changed something: %+v", u)
	}
}

func TestSimulationSeesWrongTransitions(t *testing.T) {
	s := sched.New(1)
	err := s.Run(func() {
		m := New(s, 100, 0)
		a, _ := m.Alloc(10, false)
		b, _ := m.Alloc(10, false)
		m.Commit(a)
		mustPanic(t, "commit twice", func() { m.Commit(a) })
		mustPanic(t, "drain live as uncommitted", func() { m.Drain(a, Uncommitted) })
		m.Drain(b, Uncommitted)
		mustPanic(t, "drain half of another", func() { m.Drain(Run{5, 10}, Live) })
		var e *OverlapError
		if err := m.Insert(Run{5, 10}, Live); !errors.As(err, &e) || e.Zone != 5 || e.State != Live {
			t.Errorf("insert over live zones: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// aged returns a map of n zones of which about the given share is in use, in
// runs of 1..40 zones and freed in no order.
func aged(n uint32, percent uint32, rng *rand.Rand) (*Map, []Run) {
	m := New(nil, n, 0)
	var runs []Run
	for round := range 3 {
		for {
			if u := m.Usage(); u.Free < n/100*(100-percent)-40 {
				break
			}
			r, err := m.Alloc(1+rng.Uint32N(40), true)
			if err != nil {
				break
			}
			runs = append(runs, r)
		}
		rng.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
		keep := len(runs)
		if round < 2 {
			keep /= 2
		}
		for _, r := range runs[keep:] {
			m.Drain(r, Uncommitted)
			m.Release(r)
		}
		runs = runs[:keep]
	}
	return m, runs
}

func BenchmarkAllocFree(b *testing.B) {
	for _, zones := range []uint32{1 << 20, 16 << 20} {
		for _, percent := range []uint32{50, 90} {
			b.Run(fmt.Sprintf("%dM-zones/%d%%-full", zones>>20, percent), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				m, runs := aged(zones, percent, rng)
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					i := rng.IntN(len(runs))
					m.Drain(runs[i], Uncommitted)
					m.Release(runs[i])
					r, err := m.Alloc(1+rng.Uint32N(40), true)
					if err != nil {
						r, err = m.Alloc(1, true)
					}
					if err != nil {
						b.Fatal(err)
					}
					runs[i] = r
				}
				b.ReportMetric(float64(len(m.free.words)*8+len(m.free.nodes)*12)/(1<<20), "MiB")
			})
		}
	}
}
