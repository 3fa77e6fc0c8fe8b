package scope

import (
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// modelScope is a scope as the model has it: what is reserved in it, and what it stands
// below. Everything else is computed from that, anew each time.
type modelScope struct {
	real    book
	name    string
	parents []*modelScope // one, of a span
	isSpan  bool
	opens   int
	closed  bool
	own     [NumKinds]int64
	limits  [NumKinds]int64
}

// book is a Scope or a Span.
type book interface {
	Used(k Kind) int64
	BeginSpan() (Span, error)
	ReserveAll(priority uint8, amounts ...Amount) error
	ReleaseAll(amounts ...Amount) error
}

func (s *modelScope) scope() *Scope { return s.real.(*Scope) }

type model struct {
	m      *Manager
	scopes []*modelScope // all that are not gone, System and Transient first
	file   Layer
}

// above returns the scope and all that it stands below.
func (s *modelScope) above() map[*modelScope]bool {
	set := map[*modelScope]bool{s: true}
	for _, p := range s.parents {
		maps.Copy(set, p.above())
	}
	return set
}

func (v *model) used(s *modelScope, k Kind) int64 {
	var sum int64
	for _, d := range v.scopes {
		if d.above()[s] {
			sum += d.own[k]
		}
	}
	return sum
}

func (s *modelScope) usable() bool {
	for a := range s.above() {
		if a.closed {
			return false
		}
	}
	return true
}

// fits says whether amounts may be reserved.
func (v *model) fits(s *modelScope, priority uint8, list []Amount) bool {
	var sum [NumKinds]int64
	for _, a := range list {
		if a.N > math.MaxInt64/4 {
			return false // no limit here is unlimited for memory at System
		}
		sum[a.Kind] += a.N
		if t := a.Kind.total(); t != a.Kind {
			sum[t] += a.N
		}
	}
	for a := range s.above() {
		for k, n := range sum {
			limit := a.limits[k]
			if Kind(k) == Memory && limit != unlimited {
				limit = int64(float64(limit) * float64(int(priority)+1) / 256) // small: exact
			}
			if n > 0 && v.used(a, Kind(k))+n > limit {
				return false
			}
		}
	}
	return true
}

// gc forgets what is closed and has nothing below it.
func (v *model) gc() {
	for again := true; again; {
		again = false
		v.scopes = slices.DeleteFunc(v.scopes, func(s *modelScope) bool {
			busy := slices.ContainsFunc(v.scopes, func(d *modelScope) bool { return slices.Contains(d.parents, s) })
			gone := s.closed && s.opens == 0 && !busy
			again = again || gone
			return gone
		})
	}
}

func (v *model) find(name string) *modelScope {
	for _, s := range v.scopes {
		if s.name == name && !s.isSpan {
			return s
		}
	}
	return nil
}

func (v *model) pick(t *rapid.T, what string, ok func(*modelScope) bool) *modelScope {
	var list []*modelScope
	for _, s := range v.scopes {
		if ok(s) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(t, what)]
}

func (s *modelScope) named() bool { return !s.isSpan }

// limitsOf gives the model the limits that a name has.
func (v *model) limitsOf(s *modelScope) {
	for k := range s.limits {
		s.limits[k] = unlimited
		if l, ok := v.file.find(s.name, Kind(k)); ok && s.named() {
			s.limits[k] = l.on(Kind(k), v.m.opt.Machine)
		}
	}
}

// check compares everything.
func (v *model) check(t *rapid.T) {
	names := 0
	for _, s := range v.scopes {
		if s.named() {
			names++
		}
		for k := range Kind(NumKinds) {
			if got, want := s.real.Used(k), v.used(s, k); got != want {
				t.Fatalf("%s (span %v) uses %d of %v, want %d", s.name, s.isSpan, got, k, want)
			}
			if s.isSpan {
				continue
			}
			if got := s.scope().Limit(k); got != s.limits[k] {
				t.Fatalf("%s may use %d of %v, want %d", s.name, got, k, s.limits[k])
			}
		}
	}
	if got := len(v.m.List()) / NumKinds; got != names {
		t.Fatalf("%d scopes with names, want %d", got, names)
	}
}

// proves G2: random graphs, limits and calls, good and bad: after each step the books
// are exactly what the model computes from what is held, in every scope and kind.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := &model{file: drawLayer(t)}
		m, err := New(Options{Machine: Machine{Memory: 1 << 20, Descriptors: 100}, Layers: map[string]Layer{"file": v.file}})
		if err != nil {
			t.Fatal(err)
		}
		v.m = m
		system := &modelScope{real: m.System(), name: SystemName, opens: 1}
		transient := &modelScope{real: m.Transient(), name: TransientName, opens: 1, parents: []*modelScope{system}}
		v.scopes = []*modelScope{system, transient}
		v.limitsOf(system)
		v.limitsOf(transient)
		t.Repeat(v.actions())
	})
}
