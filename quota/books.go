package quota

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Books are records in memory, with indexes and sums made from them: a [Reader], and
// what a store that keeps all of it in memory is built on. They have no lock: who
// uses them has one. [Books.Verify] makes the sums again, from the records.
type Books struct {
	generation Generation
	next       ID

	classes map[string]*classEntry
	names   []string // of classes, by classEntry.index; "" where one was
	owners  map[string]*ownerEntry
	limits  int // set ones
	claims  map[ID]*claimEntry

	real     map[string]*claimEntry
	requests map[string]requestEntry
	ended    []string // request ids of claims that have ended, the oldest first
	reserved map[ID]*claimEntry
	soonest  time.Time // no reservation ends before; zero: there may be any
}

type classEntry struct {
	Class
	index int // of its sum in each owner
}

type ownerEntry struct {
	name   string
	parent *ownerEntry // nil of the root
	limits map[string]Limit
	sums   []Sum // by class
}

type claimEntry struct {
	claim    *Claim
	owner    *ownerEntry
	children map[ID]struct{} // nil: none
}

type requestEntry struct {
	request Request
	claim   ID
}

var _ Reader = (*Books)(nil)

// NewBooks returns books with nothing in them.
func NewBooks() *Books {
	b := &Books{
		next: 1, classes: make(map[string]*classEntry), owners: make(map[string]*ownerEntry), claims: make(map[ID]*claimEntry),
		real: make(map[string]*claimEntry), requests: make(map[string]requestEntry), reserved: make(map[ID]*claimEntry),
	}
	b.owners[""] = &ownerEntry{}
	return b
}

// Generation implements [Reader].
func (b *Books) Generation() Generation { return b.generation }

// NextID implements [Reader].
func (b *Books) NextID() ID { return b.next }

// Class implements [Reader].
func (b *Books) Class(name string) (Class, bool) {
	if c := b.classes[name]; c != nil {
		return c.Class, true
	}
	return Class{}, false
}

// Classes implements [Reader].
func (b *Books) Classes() []Class {
	list := make([]Class, 0, len(b.classes))
	for _, c := range b.classes { // order does not matter: sorted below
		list = append(list, c.Class)
	}
	slices.SortFunc(list, func(x, y Class) int { return cmp.Compare(x.Name, y.Name) })
	return list
}

// Owner implements [Reader].
func (b *Books) Owner(name string) (Owner, bool) {
	o := b.owners[name]
	if o == nil || o.parent == nil {
		return Owner{}, false
	}
	return Owner{Name: o.name, Parent: o.parent.name}, true
}

// Owners implements [Reader].
func (b *Books) Owners() []Owner {
	list := make([]Owner, 0, len(b.owners))
	for _, o := range b.owners { // order does not matter: sorted below
		if o.parent != nil {
			list = append(list, Owner{Name: o.name, Parent: o.parent.name})
		}
	}
	slices.SortFunc(list, func(x, y Owner) int { return cmp.Compare(x.Name, y.Name) })
	return list
}

// Limit implements [Reader].
func (b *Books) Limit(owner, class string) (Limit, bool) {
	o := b.owners[owner]
	if o == nil {
		return 0, false
	}
	l, ok := o.limits[class]
	return l, ok
}

// Limits implements [Reader].
func (b *Books) Limits() []OwnerLimit {
	list := make([]OwnerLimit, 0, b.limits)
	for _, o := range b.owners { // order does not matter: sorted below
		for class, l := range o.limits { // nor here
			list = append(list, OwnerLimit{Owner: o.name, Class: class, Limit: l})
		}
	}
	slices.SortFunc(list, func(x, y OwnerLimit) int {
		return cmp.Or(cmp.Compare(x.Owner, y.Owner), cmp.Compare(x.Class, y.Class))
	})
	return list
}

// Used implements [Reader].
func (b *Books) Used(owner, class string) Sum {
	o, c := b.owners[owner], b.classes[class]
	if o == nil || c == nil || c.index >= len(o.sums) {
		return Sum{}
	}
	return o.sums[c.index]
}

// Claim implements [Reader].
func (b *Books) Claim(id ID) (*Claim, bool) {
	if e := b.claims[id]; e != nil {
		return e.claim, true
	}
	return nil, false
}

// Real implements [Reader].
func (b *Books) Real(name string) (*Claim, bool) {
	if e := b.real[name]; e != nil {
		return e.claim, true
	}
	return nil, false
}

// Request implements [Reader].
func (b *Books) Request(id string) (Request, ID, bool) {
	e, ok := b.requests[id]
	return e.request, e.claim, ok
}

// Children implements [Reader].
func (b *Books) Children(id ID) []ID {
	e := b.claims[id]
	if e == nil || len(e.children) == 0 {
		return nil
	}
	list := make([]ID, 0, len(e.children))
	for c := range e.children { // order does not matter: sorted below
		list = append(list, c)
	}
	slices.Sort(list)
	return list
}

// Claims implements [Reader].
func (b *Books) Claims() []*Claim {
	list := make([]*Claim, 0, len(b.claims))
	for _, e := range b.claims { // order does not matter: sorted below
		list = append(list, e.claim)
	}
	slices.SortFunc(list, byID)
	return list
}

// Count returns the number of claims.
func (b *Books) Count() int { return len(b.claims) }

func byID(x, y *Claim) int { return cmp.Compare(x.ID, y.ID) }

// NextExpiry implements [Reader].
func (b *Books) NextExpiry() (next time.Time, ok bool) {
	for _, e := range b.reserved { // order does not matter: the least of all
		if !ok || e.claim.Expires.Before(next) {
			next, ok = e.claim.Expires, true
		}
	}
	return next, ok
}

// Due implements [Reader].
func (b *Books) Due(now time.Time) []*Claim {
	if now.Before(b.soonest) {
		return nil
	}
	var list []*Claim
	soonest := time.Unix(math.MaxInt32, 0) // far off
	for _, e := range b.reserved {         // order does not matter: sorted below
		if !e.claim.Expires.After(now) {
			list = append(list, e.claim)
		}
		if e.claim.Expires.Before(soonest) {
			soonest = e.claim.Expires
		}
	}
	b.soonest = soonest
	slices.SortFunc(list, byID)
	return list
}

// Ended returns the request ids that are remembered of claims that have ended, the
// oldest first.
func (b *Books) Ended() []Request {
	list := make([]Request, 0, len(b.ended))
	for _, id := range b.ended {
		list = append(list, b.requests[id].request)
	}
	return list
}

// EndedClaim returns the claim that an ended request was about.
func (b *Books) EndedClaim(request string) ID { return b.requests[request].claim }
