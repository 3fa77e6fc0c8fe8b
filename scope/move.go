package scope

import (
	"fmt"
	"slices"
)

// Move puts a scope with a name below others, with all that stands below it: what it
// uses counts in those that are above it now, and no longer in those that are not.
// Either all has moved or, if one of them refuses, nothing has.
func (s *Scope) Move(parents ...*Scope) error {
	m := s.m
	if s.owner != nil || s == m.system || s == m.transient || len(parents) == 0 {
		return fmt.Errorf("%w: %s cannot be put below %d others", ErrInvalid, s.name, len(parents))
	}
	now := m.opt.Now() // under no lock
	m.mu.Lock()
	below := family(s)
	err := m.mayBeAbove(parents)
	for _, p := range parents {
		if err == nil && slices.Contains(below, p) {
			err = fmt.Errorf("%w: %s stands below it", ErrInvalid, p.name)
		}
	}
	if err == nil && m.names[s.name] != s {
		err = ErrClosed
	}
	if err == nil && s.late(now) {
		err = fmt.Errorf("%w: it has not said in time whose it is", ErrExpired)
	}
	if err != nil {
		m.mu.Unlock()
		return fmt.Errorf("move scope %s: %w", s.name, err)
	}
	v := newMove(s, below, parents)
	var r refusal
	v.run(&r)
	if r.at == nil {
		for _, p := range s.parents {
			delete(p.children, s)
		}
		old := s.parents
		s.parents = slices.Clone(parents)
		for _, p := range parents {
			p.children[s] = struct{}{}
		}
		for _, p := range old {
			m.drop(p)
		}
		if !slices.Contains(parents, m.transient) {
			s.conn = nil // it has arrived
		}
	}
	m.mu.Unlock()
	m.tasksFreed()
	if r.at != nil {
		return r.tell()
	}
	return nil
}

// family returns a scope and all with names below it, each before those below it. The
// manager's mu is held.
func family(s *Scope) []*Scope {
	list := []*Scope{s}
	for i := 0; i < len(list); i++ {
		for c := range list[i].children { // order does not matter: sorted below
			if !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	// Behind all that it stands below.
	var sorted []*Scope
	for len(sorted) < len(list) {
		for _, c := range list {
			ready := !slices.Contains(sorted, c)
			for _, p := range c.parents {
				ready = ready && (c == s || !slices.Contains(list, p) || slices.Contains(sorted, p))
			}
			if ready {
				sorted = append(sorted, c)
			}
		}
	}
	return sorted
}

// move is a Move under way. All that moves is locked.
type move struct {
	all   []*Scope            // spans too, each behind what it stands below
	up    map[*Scope][]*Scope // to be
	delta map[*Scope]*[NumKinds]int64
	order []*Scope // of delta
}

// newMove locks what moves, which run unlocks, and sums up what changes.
//
// +checklocksignore
func newMove(s *Scope, below, parents []*Scope) *move {
	v := &move{up: make(map[*Scope][]*Scope), delta: make(map[*Scope]*[NumKinds]int64)}
	for _, d := range below {
		d.mu.Lock()
		from := d.parents
		if d == s {
			from = parents
		}
		v.put(d, above(from, v.upOf))
	}
	for i := 0; i < len(v.all); i++ { // spans, which have spans
		d := v.all[i]
		for c := d.spans; c != nil; c = c.prev {
			c.mu.Lock()
			v.put(c, append([]*Scope{d}, v.up[d]...))
		}
	}
	for _, d := range v.all {
		for _, a := range d.up {
			v.count(a, d, -1)
		}
		for _, a := range v.up[d] {
			v.count(a, d, 1)
		}
	}
	return v
}

func (v *move) put(d *Scope, up []*Scope) {
	v.all = append(v.all, d)
	v.up[d] = up
}

// upOf returns what will be above a scope, which moves or not.
func (v *move) upOf(p *Scope) []*Scope {
	if up, ok := v.up[p]; ok {
		return up
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// count adds what a scope that moves has reserved itself to what another gets.
//
// +checklocksignore
func (v *move) count(a, d *Scope, sign int64) {
	n := v.delta[a]
	if n == nil {
		n = new([NumKinds]int64)
		v.delta[a] = n
		v.order = append(v.order, a)
	}
	for k := range n {
		n[k] += sign * d.own[k]
	}
}

// run takes what is to be taken, then gives what is to be given, and unlocks all; or it
// says in r what was refused.
//
// +checklocksignore
func (v *move) run(r *refusal) {
	defer func() {
		for _, d := range v.all {
			d.mu.Unlock()
		}
	}()
	for i, a := range v.order {
		if !v.takeMore(a, r) {
			for _, b := range v.order[:i] {
				v.change(b, 1)
			}
			return
		}
	}
	for _, a := range v.order {
		v.change(a, -1)
	}
	for _, d := range v.all {
		d.up, d.path = v.up[d], nil
	}
}

// takeMore takes in one scope all that it gets, or nothing and says in r what is too
// much.
func (v *move) takeMore(a *Scope, r *refusal) bool {
	for k, n := range v.delta[a] {
		if n <= 0 || a.takeOne(Amount{Kind(k), n}, MaxPriority, r) {
			continue
		}
		for j, n := range v.delta[a][:k] {
			if n > 0 {
				a.sub(Kind(j), n)
			}
		}
		return false
	}
	return true
}

// change gives back what a scope got, or what it gives, by the sign.
func (v *move) change(a *Scope, sign int64) {
	for k, n := range v.delta[a] {
		if n *= sign; n > 0 {
			a.sub(Kind(k), n)
		}
	}
}
