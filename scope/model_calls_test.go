package scope

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"pgregory.net/rapid"
)

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
