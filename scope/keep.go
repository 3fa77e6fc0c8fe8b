package scope

import "slices"

// A task that stands below several scopes begins when all of them have a place for it at
// the same moment. If others keep taking now the place in one and now that in another,
// that moment may never come. So places are kept for a task that such a scope has refused,
// after that has let Options.Passed others begin: one in each scope above the task, into
// which nobody else is let. They become free as those that run end, and then it begins.
//
// A scope in which nothing begins, because what runs in it does not end, passes nobody:
// places elsewhere are not kept for those that wait for it. Each scope has one task for
// which places are kept because of it. Of two that want the same place the one for which
// it is kept for longer gets it: none waits for the other in a circle.

// seen is what a task that waits has seen of a scope: how many had begun in it.
type seen struct {
	scope *Scope
	began uint64
}

// named returns the scopes with names that a span counts in, or those above one with
// a name.
func named(s *Scope) []*Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	for i < len(s.up) && s.up[i].book == nil {
		i++
	}
	return s.up[i:] // spans stand below all with names
}

// began counts tasks that have begun in a span, or in a scope with a name. The
// scheduler's mu is held.
func began(s *Scope, n int64) {
	if s.book != nil {
		s.began += uint64(n)
	}
	for _, a := range named(s) {
		a.began += uint64(n)
	}
}

// forked says whether scopes, each before those above it, do not simply stand below one
// another: then what ends in one of them need not make room in all above the lowest.
func forked(chain []*Scope) bool {
	for i, a := range chain {
		a.mu.Lock()
		n := len(a.up)
		a.mu.Unlock()
		if n != len(chain)-i-1 {
			return true
		}
	}
	return false
}

// refused notes that a scope has refused a task, and keeps places for it or no more.
//
// +checklocks:q.mu
func (q *scheduler) refused(t *Task, full *Scope) {
	chain := named(t.s)
	if t.stuck != nil && !slices.Equal(chain, t.kept) {
		q.letGo(t) // it was moved
	}
	if !forked(chain) {
		return
	}
	for _, a := range chain {
		if !slices.ContainsFunc(t.seen, func(s seen) bool { return s.scope == a }) {
			t.seen = append(t.seen, seen{a, a.began})
		}
	}
	i := slices.IndexFunc(t.seen, func(s seen) bool { return s.scope == full })
	switch late := full.began-t.seen[i].began >= uint64(q.m.opt.Passed); {
	case !late:
		q.letGo(t)
	case t.stuck == nil && full.keeper == nil:
		full.keeper, t.stuck, t.kept = t, full, chain
		q.keepers = append(q.keepers, t)
		t.keep(1)
	}
}

// keep changes how many places are kept in the scopes above a task.
func (t *Task) keep(n int64) {
	for _, a := range t.kept {
		a.kept[t.kind-TasksHigh].Add(n)
		a.kept[Tasks-TasksHigh].Add(n)
	}
}

// letGo ends the keeping of places for a task, if there are any.
//
// +checklocks:q.mu
func (q *scheduler) letGo(t *Task) {
	if t.stuck == nil {
		return
	}
	t.keep(-1)
	t.stuck.keeper, t.stuck, t.kept = nil, nil, nil
	q.keepers = slices.DeleteFunc(q.keepers, func(o *Task) bool { return o == t })
	q.again = true
}

// firstKeeper begins the first of those for which places are kept that can, and says whether
// there was one.
//
// +checklocks:q.mu
func (q *scheduler) firstKeeper() bool {
	for i := 0; i < len(q.keepers); {
		t := q.keepers[i]
		// What is kept for it, and for those after it, is its to take.
		for _, o := range q.keepers[i:] {
			o.keep(-1)
		}
		full, err := t.take()
		for _, o := range q.keepers[i:] {
			o.keep(1)
		}
		if full == nil {
			queue := int(t.kind - TasksHigh)
			q.begin(t, queue, slices.Index(q.queues[queue], t), err)
			return true
		}
		if q.refused(t, full); t.stuck != nil {
			i++
		}
	}
	return false
}
