package quota

import (
	"fmt"
	"slices"
	"time"
)

// Apply makes changes, in their order, and raises the generation. Who calls it has
// checked them, as [Ledger] does; it refuses what would not be records: a claim of a
// class or an owner that is not there, an owner without its parent. An error says
// that the changes before it were made: the books are of no use then.
func (b *Books) Apply(changes []Change) error {
	for i, c := range changes {
		if err := b.apply(c); err != nil {
			return fmt.Errorf("change %d of %d, %T: %w", i+1, len(changes), c, err)
		}
	}
	b.generation++
	return nil
}

// SkipIDs has no id below next given any more.
func (b *Books) SkipIDs(next ID) { b.next = max(b.next, next) }

func (b *Books) apply(c Change) error {
	switch c := c.(type) {
	case PutClass:
		return b.putClass(c.Class)
	case DropClass:
		return b.dropClass(c.Name)
	case PutOwner:
		return b.putOwner(c.Owner)
	case PutLimit:
		return b.putLimit(c.Limit)
	case DropLimit:
		if o := b.owners[c.Owner]; o != nil {
			if _, ok := o.limits[c.Class]; ok {
				delete(o.limits, c.Class)
				b.limits--
			}
		}
		return nil
	case PutClaim:
		return b.putClaim(c.Claim)
	case DropClaim:
		return b.dropClaim(c.ID, c.Request)
	}
	return invalid("no such change")
}

func (b *Books) putClass(c Class) error {
	if err := c.validate(); err != nil {
		return err
	}
	if e := b.classes[c.Name]; e != nil {
		e.Class = c
		return nil
	}
	index := slices.Index(b.names, "")
	if index < 0 {
		index = len(b.names)
		b.names = append(b.names, "")
	}
	b.names[index] = c.Name
	b.classes[c.Name] = &classEntry{Class: c, index: index}
	return nil
}

func (b *Books) dropClass(name string) error {
	c := b.classes[name]
	if c == nil {
		return nil
	}
	for _, o := range b.owners { // order does not matter: it is the root that refuses
		if _, ok := o.limits[name]; ok || c.index < len(o.sums) && o.sums[c.index] != (Sum{}) {
			return faultf(ErrInUse, "class %s: there are claims or limits of it", name)
		}
	}
	delete(b.classes, name)
	b.names[c.index] = ""
	return nil
}

func (b *Books) putOwner(o Owner) error {
	parent := b.owners[o.Parent]
	switch {
	case !ValidOwner(o.Name):
		return invalid("owner name %q: want 1 to %d bytes of printable UTF-8 without spaces, '=' and ','", o.Name, MaxName)
	case parent == nil:
		return faultf(ErrNotFound, "owner %s: its parent %s is not there", o.Name, o.Parent)
	}
	if e := b.owners[o.Name]; e != nil {
		if e.parent != parent {
			return faultf(ErrExists, "owner %s: it is there under %q", o.Name, e.parent.name)
		}
		return nil
	}
	depth := 1
	for p := parent; p != nil; p = p.parent {
		depth++
	}
	if depth > MaxDepth {
		return invalid("owner %s: %d owners above one another: at most %d", o.Name, depth, MaxDepth)
	}
	b.owners[o.Name] = &ownerEntry{name: o.Name, parent: parent}
	return nil
}

func (b *Books) putLimit(l OwnerLimit) error {
	o := b.owners[l.Owner]
	switch {
	case o == nil || o.parent == nil:
		return faultf(ErrNotFound, "no owner %q", l.Owner)
	case b.classes[l.Class] == nil:
		return faultf(ErrNotFound, "no class %s", l.Class)
	case l.Limit < Unlimited:
		return invalid("limit %d: want 0 or more, or unlimited", l.Limit)
	}
	if o.limits == nil {
		o.limits = make(map[string]Limit)
	}
	if _, ok := o.limits[l.Class]; !ok {
		b.limits++
	}
	o.limits[l.Class] = l.Limit
	return nil
}

func (b *Books) putClaim(c *Claim) error {
	owner := b.owners[c.Owner]
	if owner == nil || owner.parent == nil {
		return faultf(ErrNotFound, "claim %v: no owner %q", c.ID, c.Owner)
	}
	for _, a := range c.Amounts {
		if e := b.classes[a.Class]; e == nil || a.N < 1 {
			return invalid("claim %v: %d of class %s", c.ID, a.N, a.Class)
		}
	}
	parent := b.claims[c.Parent]
	switch old := b.real[c.Real]; {
	case c.ID == 0, c.Parent != 0 && (parent == nil || c.Parent >= c.ID):
		return invalid("claim %v under %v", c.ID, c.Parent)
	case c.State != Reserved && c.State != Held, (c.State == Held) != (c.Real != ""):
		return invalid("claim %v: state %d, real id %q", c.ID, c.State, c.Real)
	case c.Real != "" && old != nil && old.claim.ID != c.ID:
		return faultf(ErrExists, "claim %v: real id %q is that of claim %v", c.ID, c.Real, old.claim.ID)
	}
	e := b.claims[c.ID]
	if e == nil {
		e = &claimEntry{}
		b.claims[c.ID] = e
		b.next = max(b.next, c.ID+1)
		if parent != nil {
			if parent.children == nil {
				parent.children = make(map[ID]struct{})
			}
			parent.children[c.ID] = struct{}{}
		}
	} else if e.claim.Parent != c.Parent {
		return invalid("claim %v moves from under %v to %v", c.ID, e.claim.Parent, c.Parent)
	} else {
		b.unindex(e)
	}
	e.claim, e.owner = c, owner
	b.index(e)
	return nil
}

// index adds a claim to the sums and to what finds it.
func (b *Books) index(e *claimEntry) {
	b.count(e, 1)
	if e.claim.Real != "" {
		b.real[e.claim.Real] = e
	}
	for _, r := range e.claim.Requests {
		b.requests[r.ID] = requestEntry{request: r, claim: e.claim.ID}
	}
	if e.claim.State == Reserved {
		b.reserved[e.claim.ID] = e
		if e.claim.Expires.Before(b.soonest) {
			b.soonest = e.claim.Expires
		}
	}
}

func (b *Books) unindex(e *claimEntry) {
	b.count(e, -1)
	if e.claim.Real != "" {
		delete(b.real, e.claim.Real)
	}
	for _, r := range e.claim.Requests {
		delete(b.requests, r.ID)
	}
	if e.claim.State == Reserved {
		delete(b.reserved, e.claim.ID)
	}
}

// count adds a claim to its owner's sums and to those of all above.
func (b *Books) count(e *claimEntry, sign int64) {
	for _, a := range e.claim.Amounts {
		i := b.classes[a.Class].index
		for o := e.owner; o != nil; o = o.parent {
			for i >= len(o.sums) {
				o.sums = append(o.sums, Sum{})
			}
			if e.claim.State == Held {
				o.sums[i].Held += sign * a.N
			} else {
				o.sums[i].Reserved += sign * a.N
			}
		}
	}
}

func (b *Books) dropClaim(id ID, by Request) error {
	e := b.claims[id]
	if e == nil {
		return nil
	}
	if len(e.children) > 0 {
		return faultf(ErrInUse, "claim %v has %d claims below it", id, len(e.children))
	}
	b.unindex(e)
	delete(b.claims, id)
	if p := b.claims[e.claim.Parent]; p != nil {
		delete(p.children, id)
	}
	for _, r := range e.claim.Requests {
		b.Remember(id, r)
	}
	if by.ID != "" {
		b.Remember(id, by)
	}
	return nil
}

// Remember keeps a request of a claim that has ended; the oldest are forgotten.
func (b *Books) Remember(claim ID, r Request) {
	if _, ok := b.requests[r.ID]; !ok {
		b.ended = append(b.ended, r.ID)
		if len(b.ended) > MaxEnded {
			delete(b.requests, b.ended[0])
			b.ended = b.ended[1:]
		}
	}
	b.requests[r.ID] = requestEntry{request: r, claim: claim}
}

// Verify makes all sums and indexes again, from the records, and says where they are
// not what is kept.
func (b *Books) Verify() error {
	again := NewBooks()
	var changes []Change
	for _, c := range b.Classes() {
		changes = append(changes, PutClass{c})
	}
	for todo := b.Owners(); len(todo) > 0; {
		var later []Owner
		for _, o := range todo {
			if again.owners[o.Parent] == nil {
				later = append(later, o)
			} else if err := again.putOwner(o); err != nil {
				return err
			}
		}
		if len(later) == len(todo) {
			return invalid("owner %s has no parent", todo[0].Name)
		}
		todo = later
	}
	for _, l := range b.Limits() {
		changes = append(changes, PutLimit{l})
	}
	for _, c := range b.Claims() {
		changes = append(changes, PutClaim{c})
	}
	if err := again.Apply(changes); err != nil {
		return err
	}
	for _, o := range append(again.Owners(), Owner{}) {
		for _, c := range again.Classes() {
			if got, want := b.Used(o.Name, c.Name), again.Used(o.Name, c.Name); got != want {
				return invalid("owner %q, class %s: the sums say %+v, the records %+v", o.Name, c.Name, got, want)
			}
		}
	}
	switch {
	case len(b.real) != len(again.real), len(b.reserved) != len(again.reserved), b.limits != again.limits, b.next < again.next:
		return invalid("indexes: %d real ids, %d reserved, %d limits, next %v; from the records %d, %d, %d, %v",
			len(b.real), len(b.reserved), b.limits, b.next, len(again.real), len(again.reserved), again.limits, again.next)
	case len(b.requests) != len(again.requests)+len(b.ended):
		return invalid("%d requests, %d of them ended; the records have %d", len(b.requests), len(b.ended), len(again.requests))
	}
	for id, r := range again.requests { // any of them will do
		if b.requests[id] != r {
			return invalid("request %q: the index says %+v, the records %+v", id, b.requests[id], r)
		}
	}
	for _, id := range b.ended {
		if r, ok := b.requests[id]; !ok || b.claims[r.claim] != nil && again.requests[id] == r {
			return invalid("request %q is remembered as one of a claim that has ended: %+v", id, r)
		}
	}
	far := time.Unix(1<<40, 0)
	if got, want := len(b.Due(far)), len(again.Due(far)); got != want {
		return invalid("%d reservations end, %d by the records", got, want)
	}
	return nil
}
