package scope

import (
	"errors"
	"fmt"
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

func drawLayer(t *rapid.T) Layer {
	l := Layer{"system": {Memory: Fixed(rapid.Int64Range(0, 2000).Draw(t, "system's memory"))}}
	for range rapid.IntRange(0, 4).Draw(t, "limits") {
		name := rapid.SampledFrom([]string{"system", "transient", "n", "n:1", "n:2", "n:3"}).Draw(t, "scope")
		k := Kind(rapid.IntRange(0, NumKinds-1).Draw(t, "kind"))
		n := int64(rapid.IntRange(0, 20).Draw(t, "limit"))
		if k == Memory {
			n *= 50
		}
		if l[name] == nil {
			l[name] = make(Limits)
		}
		l[name][k] = rapid.SampledFrom([]Limit{Fixed(n), Fixed(n), Fixed(2 * n), Fixed(2 * n), Block()}).Draw(t, "form")
	}
	return l
}

func drawAmounts(t *rapid.T) (list []Amount, valid bool) {
	valid = true
	for range rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "amounts") {
		a := Amount{
			rapid.SampledFrom([]Kind{Memory, Memory, Inbound, Outbound, Descriptors, TasksHigh, TasksMedium, TasksLow}).Draw(t, "kind"),
			int64(rapid.IntRange(0, 8).Draw(t, "n")),
		}
		switch rapid.IntRange(0, 19).Draw(t, "how") {
		case 0:
			a.Kind = rapid.SampledFrom([]Kind{Connections, Tasks, Kind(NumKinds)}).Draw(t, "wrong kind")
		case 1:
			a.N = -1
		case 2:
			a = Amount{Memory, math.MaxInt64 - int64(rapid.IntRange(0, 1).Draw(t, "less"))}
		case 3, 4, 5:
			a.N *= 40
		}
		valid = valid && a.N >= 0 && a.Kind.reservable()
		list = append(list, a)
	}
	return list, valid
}

func (v *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": v.check, "open": v.open, "open again": v.open, "close": v.close, "span": v.span, "done": v.done, "move": v.move, "move again": v.move,
		"reserve": v.reserve, "reserve again": v.reserve, "release": v.release, "limits": func(t *rapid.T) {
			v.file = drawLayer(t)
			if err := v.m.SetLayer("file", v.file); err != nil {
				t.Fatal(err)
			}
			for _, s := range v.scopes {
				v.limitsOf(s)
			}
		},
	}
}

func (v *model) parents(t *rapid.T) (list []*modelScope, reals []*Scope) {
	for range rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "parents") {
		p := v.pick(t, "parent", (*modelScope).named)
		list, reals = append(list, p), append(reals, p.scope())
	}
	return list, reals
}

// legal says whether what is to stand below others may.
func legal(s *modelScope, parents []*modelScope) bool {
	for i, p := range parents {
		if p.closed || slices.Contains(parents[:i], p) || s != nil && p.above()[s] {
			return false
		}
	}
	return true
}

func (v *model) open(t *rapid.T) {
	name := fmt.Sprint("n:", rapid.IntRange(1, 7).Draw(t, "name"))
	parents, reals := v.parents(t)
	opened, err := v.m.Open(name, reals...)
	s := v.find(name)
	switch {
	case s != nil:
		if err != nil || opened != s.real {
			t.Fatalf("%s opened again is another: %v", name, err)
		}
	case !legal(nil, parents):
		if err == nil {
			t.Fatal("opened")
		}
		return
	case err != nil:
		t.Fatal(err)
	default:
		s = &modelScope{real: opened, name: name, parents: parents}
		v.limitsOf(s)
		v.scopes = append(v.scopes, s)
	}
	s.opens, s.closed = s.opens+1, false
}

func (v *model) close(t *rapid.T) {
	s := v.pick(t, "scope", func(s *modelScope) bool { return s.named() && len(s.parents) > 0 && s.name != TransientName })
	if s == nil {
		return
	}
	err := s.scope().Close()
	if s.opens == 0 {
		if !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.opens--; s.opens == 0 {
		s.closed, s.own = true, [NumKinds]int64{}
	}
	v.gc()
}

func (v *model) span(t *rapid.T) {
	o := v.pick(t, "owner", func(*modelScope) bool { return true })
	begun, err := o.real.BeginSpan()
	if !o.usable() {
		if !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &modelScope{real: begun, name: o.name, parents: []*modelScope{o}, isSpan: true}
	v.limitsOf(s)
	v.scopes = append(v.scopes, s)
}

func (v *model) done(t *rapid.T) {
	s := v.pick(t, "span", func(s *modelScope) bool { return s.isSpan })
	if s == nil {
		return
	}
	if err := s.real.(Span).Done(); s.closed != errors.Is(err, ErrClosed) || !s.closed && err != nil {
		t.Fatal(err)
	}
	s.closed, s.own = true, [NumKinds]int64{}
	v.gc()
}

func (v *model) move(t *rapid.T) {
	s := v.pick(t, "scope", func(s *modelScope) bool {
		return s.named() && s.opens > 0 && len(s.parents) > 0 && s.name != TransientName
	})
	if s == nil {
		return
	}
	parents, reals := v.parents(t)
	err := s.scope().Move(reals...)
	if !legal(s, parents) {
		if err == nil {
			t.Fatal("moved")
		}
		return
	}
	old, before := s.parents, v.uses()
	s.parents = parents
	fits := true
	for a, after := range v.uses() {
		for k, n := range after {
			fits = fits && (n <= before[a][k] || n <= a.limits[k])
		}
	}
	if fits != (err == nil) || err != nil && !errors.Is(err, ErrLimit) {
		t.Fatalf("fits %v, error %v", fits, err)
	}
	if !fits {
		s.parents = old
	}
	v.gc()
}

func (v *model) uses() map[*modelScope][NumKinds]int64 {
	m := make(map[*modelScope][NumKinds]int64)
	for _, s := range v.scopes {
		var n [NumKinds]int64
		for k := range n {
			n[k] = v.used(s, Kind(k))
		}
		m[s] = n
	}
	return m
}

func (v *model) reserve(t *rapid.T) {
	s := v.pick(t, "scope", func(*modelScope) bool { return true })
	list, valid := drawAmounts(t)
	priority := rapid.Uint8().Draw(t, "priority")
	err := s.real.ReserveAll(priority, list...)
	var want error
	switch {
	case !valid:
		want = ErrInvalid
	case !s.usable():
		want = ErrClosed
	case !v.fits(s, priority, list):
		want = ErrLimit
	}
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	if want == nil {
		s.add(list, 1)
	}
}

func (s *modelScope) add(list []Amount, sign int64) {
	for _, a := range list {
		s.own[a.Kind] += sign * a.N
		if t := a.Kind.total(); t != a.Kind {
			s.own[t] += sign * a.N
		}
	}
}

func (v *model) release(t *rapid.T) {
	s := v.pick(t, "scope", func(*modelScope) bool { return true })
	list, valid := drawAmounts(t)
	err := s.real.ReleaseAll(list...)
	enough := modelScope{own: s.own}
	if valid {
		enough.add(list, -1)
	}
	var want error
	switch {
	case !valid:
		want = ErrInvalid
	case s.closed:
		want = ErrClosed
	case slices.Min(enough.own[:]) < 0, slices.ContainsFunc(list, func(a Amount) bool { return a.N > math.MaxInt64/4 }):
		want = ErrNotReserved
	}
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	if want == nil {
		s.own = enough.own
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
