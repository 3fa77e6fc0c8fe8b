package quota

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// Check says whether Apply would make changes, in their order; nothing is changed. It
// refuses what would not be records: a claim of a class or an owner that is not there,
// an owner without its parent, texts and lists beyond their bounds. A ledger sends
// none of these. Errors: ErrInvalid, ErrNotFound, ErrExists, ErrInUse.
func (b *Books) Check(changes []Change) error {
	d := draft{b: b}
	for i, c := range changes {
		if err := d.change(c, i == len(changes)-1); err != nil {
			return fmt.Errorf("change %d of %d, %T: %w", i+1, len(changes), c, err)
		}
	}
	return nil
}

// draft is books as they would be after some changes: what differs from them. A map is
// nil as long as nothing does.
type draft struct {
	b       *Books
	classes map[string]bool    // whether they are there
	sums    map[string]int64   // how much more is claimed of a class
	owners  map[string]string  // that are added: their parents
	limits  map[[2]string]bool // by owner and class, whether they are set
	claims  map[ID]*Claim      // nil: it is dropped
	below   map[ID]int         // how many claims more are right below one
	real    map[string]ID      // whose they are; 0: nobody's
	request map[string]ID      // likewise
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = make(map[K]V)
	}
	(*m)[k] = v
}

// change says whether one more change can be made, and makes it unless it is the last.
func (d *draft) change(c Change, last bool) (err error) {
	switch c := c.(type) {
	case PutClass:
		if err = c.Class.validate(); err == nil && !last {
			put(&d.classes, c.Class.Name, true)
		}
	case DropClass:
		if err = d.mayDropClass(c.Name); err == nil && !last {
			put(&d.classes, c.Name, false)
		}
	case PutOwner:
		if err = d.mayPutOwner(c.Owner); err == nil && !last {
			put(&d.owners, c.Owner.Name, c.Owner.Parent)
		}
	case PutLimit:
		if err = d.mayPutLimit(c.Limit); err == nil && !last {
			put(&d.limits, [2]string{c.Limit.Owner, c.Limit.Class}, true)
		}
	case DropLimit:
		if !validText(c.Owner) || !validText(c.Class) {
			return invalid("no limit of %q for %q can be set", c.Class, c.Owner)
		}
		if !last {
			put(&d.limits, [2]string{c.Owner, c.Class}, false)
		}
	case PutClaim:
		if err = d.mayPutClaim(c.Claim); err == nil && !last {
			d.putClaim(c.Claim)
		}
	case DropClaim:
		if err = d.mayDropClaim(c.ID, c.Request); err == nil && !last {
			d.dropClaim(c.ID, c.Request)
		}
	default:
		err = invalid("no such change")
	}
	return err
}

func (d *draft) class(name string) bool {
	if there, ok := d.classes[name]; ok {
		return there
	}
	return d.b.classes[name] != nil
}

// owner returns an owner's parent. The root is no owner.
func (d *draft) owner(name string) (parent string, ok bool) {
	if parent, ok = d.owners[name]; ok {
		return parent, true
	}
	if o := d.b.owners[name]; o != nil && o.parent != nil {
		return o.parent.name, true
	}
	return "", false
}

func (d *draft) claim(id ID) *Claim {
	if c, ok := d.claims[id]; ok {
		return c
	}
	if e := d.b.claims[id]; e != nil {
		return e.claim
	}
	return nil
}

func (d *draft) realOf(name string) ID {
	if id, ok := d.real[name]; ok {
		return id
	}
	if e := d.b.real[name]; e != nil {
		return e.claim.ID
	}
	return 0
}

// used returns how much of a class is claimed.
func (d *draft) used(class string) int64 {
	return d.b.Used("", class).Total() + d.sums[class]
}

// requested returns the claim of a request, which may have ended.
func (d *draft) requested(id string) ID {
	if c, ok := d.request[id]; ok {
		return c
	}
	return d.b.requests[id].claim
}

func (d *draft) mayDropClass(name string) error {
	used, limits := d.used(name), 0
	for key, set := range d.limits { // order does not matter: they are counted
		if set && key[1] == name {
			limits++
		}
	}
	for _, o := range d.b.owners { // nor here
		_, set := o.limits[name]
		if _, changed := d.limits[[2]string{o.name, name}]; set && !changed {
			limits++
		}
	}
	switch {
	case !validText(name):
		return invalid("no class has the name %q", name)
	case used != 0 || limits > 0:
		return faultf(ErrInUse, "class %s: %d of it are claimed, %d limits of it are set", name, used, limits)
	}
	return nil
}

func (d *draft) mayPutOwner(o Owner) error {
	if err := validOwner(o.Name); err != nil {
		return err
	}
	if parent, ok := d.owner(o.Name); ok {
		if parent != o.Parent {
			return faultf(ErrExists, "owner %q: it is there under %q", o.Name, parent)
		}
		return nil
	}
	depth := 1
	for p := o.Parent; p != ""; depth++ {
		above, ok := d.owner(p)
		if !ok {
			return faultf(ErrNotFound, "owner %q: no owner %q to be above it", o.Name, p)
		}
		p = above
	}
	if depth > MaxDepth-1 {
		return invalid("owner %q: it would be the %d-th below one another: at most %d", o.Name, depth, MaxDepth-1)
	}
	return nil
}

func (d *draft) mayPutLimit(l OwnerLimit) error {
	_, ok := d.owner(l.Owner)
	switch {
	case !ok:
		return faultf(ErrNotFound, "no owner %q", l.Owner)
	case !d.class(l.Class):
		return noClass(l.Class)
	case l.Limit < Unlimited:
		return invalid("limit %d: want 0 or more, or unlimited", l.Limit)
	}
	return nil
}

func (d *draft) mayPutClaim(c *Claim) error {
	_, owned := d.owner(c.Owner)
	old := d.claim(c.ID)
	switch {
	case !owned:
		return faultf(ErrNotFound, "claim %v: no owner %q", c.ID, c.Owner)
	case c.ID == 0, old != nil && old.Parent != c.Parent, old == nil && c.Parent != 0 && (c.Parent >= c.ID || d.claim(c.Parent) == nil):
		return invalid("claim %v under %v", c.ID, c.Parent)
	case c.State != Reserved && c.State != Held, (c.State == Held) != (c.Real != ""), c.State == Held && !c.Expires.IsZero():
		return invalid("claim %v: state %d, real id %q, ends at %v", c.ID, c.State, c.Real, c.Expires)
	case !validText(c.Real), len(c.Requests) > MaxRequests, len(c.Amounts) > MaxAmounts:
		return invalid("claim %v: a real id of %d bytes, %d requests, %d amounts", c.ID, len(c.Real), len(c.Requests), len(c.Amounts))
	}
	for _, r := range c.Requests {
		if r.ID == "" || !validText(r.ID) {
			return invalid("claim %v: a request id of %d bytes", c.ID, len(r.ID))
		}
		if id := d.requested(r.ID); id != 0 && (id != c.ID || old == nil) {
			return faultf(ErrExists, "claim %v: request %q is that of claim %v", c.ID, r.ID, id)
		}
	}
	for i, a := range c.Amounts {
		had := int64(0)
		if old != nil {
			had = old.amount(a.Class)
		}
		switch {
		case !d.class(a.Class), a.N < 1, i > 0 && a.Class <= c.Amounts[i-1].Class:
			return invalid("claim %v: %d of class %q", c.ID, a.N, a.Class)
		case a.N > math.MaxInt64-(d.used(a.Class)-had):
			return invalid("claim %v: %d of class %q: more than can be counted", c.ID, a.N, a.Class)
		}
	}
	if id := d.realOf(c.Real); c.Real != "" && id != 0 && id != c.ID {
		return faultf(ErrExists, "claim %v: real id %q is that of claim %v", c.ID, c.Real, id)
	}
	return nil
}

func (d *draft) putClaim(c *Claim) {
	old := d.claim(c.ID)
	d.count(old, -1)
	if old == nil && c.Parent != 0 {
		put(&d.below, c.Parent, d.below[c.Parent]+1)
	}
	d.count(c, 1)
	put(&d.claims, c.ID, c)
}

// count adds a claim to the sums and to the real ids; with sign -1 it is the end of it.
func (d *draft) count(c *Claim, sign int64) {
	if c == nil {
		return
	}
	for _, a := range c.Amounts {
		put(&d.sums, a.Class, d.sums[a.Class]+sign*a.N)
	}
	id := c.ID
	if sign < 0 {
		id = 0
	}
	if c.Real != "" {
		put(&d.real, c.Real, id)
	}
	for _, r := range c.Requests {
		put(&d.request, r.ID, id)
	}
}

func (d *draft) mayDropClaim(id ID, by Request) error {
	children := d.below[id]
	if e := d.b.claims[id]; e != nil {
		children += len(e.children)
	}
	switch {
	case !validText(by.ID):
		return invalid("a request id of %d bytes", len(by.ID))
	case children > 0:
		return faultf(ErrInUse, "claim %v has %d claims below it", id, children)
	case by.ID != "" && d.requested(by.ID) != 0 && d.claim(id) != nil:
		return faultf(ErrExists, "request %q is that of claim %v", by.ID, d.requested(by.ID))
	}
	return nil
}

func (d *draft) dropClaim(id ID, by Request) {
	old := d.claim(id)
	if old == nil {
		return
	}
	d.count(old, -1)
	for _, r := range append(slices.Clip(old.Requests), by) { // they are remembered
		if r.ID != "" {
			put(&d.request, r.ID, id)
		}
	}
	if old.Parent != 0 {
		put(&d.below, old.Parent, d.below[old.Parent]-1)
	}
	put(&d.claims, id, nil)
}

// validText says whether a store takes a text of a record.
func validText(s string) bool { return len(s) <= MaxName && utf8.ValidString(s) }
