package quota

import (
	"slices"
	"time"
)

// Apply makes changes, in their order, and raises the generation, or makes none, if
// they are not what [Books.Check] takes.
func (b *Books) Apply(changes []Change) error {
	if err := b.Check(changes); err != nil {
		return err
	}
	for _, c := range changes {
		b.apply(c)
	}
	b.generation++
	return nil
}

// SkipIDs has no id below next given any more.
func (b *Books) SkipIDs(next ID) { b.next = max(b.next, next) }

// apply makes one change, which was checked.
func (b *Books) apply(c Change) {
	switch c := c.(type) {
	case PutClass:
		b.putClass(c.Class)
	case DropClass:
		if e := b.classes[c.Name]; e != nil {
			delete(b.classes, c.Name)
			b.names[e.index] = ""
		}
	case PutOwner:
		if b.owners[c.Owner.Name] == nil {
			b.owners[c.Owner.Name] = &ownerEntry{name: c.Owner.Name, parent: b.owners[c.Owner.Parent]}
		}
	case PutLimit:
		b.putLimit(c.Limit)
	case DropLimit:
		if o := b.owners[c.Owner]; o != nil {
			if _, ok := o.limits[c.Class]; ok {
				delete(o.limits, c.Class)
				b.limits--
			}
		}
	case PutClaim:
		b.putClaim(c.Claim)
	case DropClaim:
		b.dropClaim(c.ID, c.Request)
	}
}

func (b *Books) putClass(c Class) {
	if e := b.classes[c.Name]; e != nil {
		e.Class = c
		return
	}
	index := slices.Index(b.names, "")
	if index < 0 {
		index = len(b.names)
		b.names = append(b.names, "")
	}
	b.names[index] = c.Name
	b.classes[c.Name] = &classEntry{Class: c, index: index}
}

func (b *Books) putLimit(l OwnerLimit) {
	o := b.owners[l.Owner]
	if o.limits == nil {
		o.limits = make(map[string]Limit)
	}
	if _, ok := o.limits[l.Class]; !ok {
		b.limits++
	}
	o.limits[l.Class] = l.Limit
}

func (b *Books) putClaim(c *Claim) {
	e := b.claims[c.ID]
	if e == nil {
		e = &claimEntry{}
		b.claims[c.ID] = e
		b.next = max(b.next, c.ID+1)
		if parent := b.claims[c.Parent]; parent != nil {
			if parent.children == nil {
				parent.children = make(map[ID]struct{})
			}
			parent.children[c.ID] = struct{}{}
		}
	} else {
		b.unindex(e)
	}
	e.claim, e.owner = c, b.owners[c.Owner]
	b.index(e)
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

func (b *Books) dropClaim(id ID, by Request) {
	e := b.claims[id]
	if e == nil {
		return
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
			} else if err := again.Apply([]Change{PutOwner{o}}); err != nil {
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
