package quotatest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/quota"
)

// model is a ledger's promises as the shortest program: lists, and sums made anew
// whenever they are asked for.
type model struct {
	owners   map[string]string // parent
	defaults map[string]quota.Limit
	totals   map[string]quota.Limit
	limits   map[[2]string]quota.Limit
	claims   map[quota.ID]*claim
}

type claim struct {
	owner   string
	parent  quota.ID
	real    string
	expires time.Time
	n       map[string]int64
}

var modelClasses = []string{"x", "y"}

func (m *model) under(owner, top string) bool {
	for owner != top {
		if owner == "" {
			return false
		}
		owner = m.owners[owner]
	}
	return true
}

func (m *model) used(owner, class string) (s quota.Sum) {
	for _, c := range m.claims {
		switch {
		case !m.under(c.owner, owner):
		case c.real != "":
			s.Held += c.n[class]
		default:
			s.Reserved += c.n[class]
		}
	}
	return s
}

func (m *model) limit(owner, class string) quota.Limit {
	if owner == "" {
		return m.totals[class]
	}
	if l, ok := m.limits[[2]string{owner, class}]; ok {
		return l
	}
	return m.defaults[class]
}

func (m *model) ended(id quota.ID, now time.Time) bool {
	c := m.claims[id]
	if c.real != "" || c.expires.After(now) {
		return false
	}
	for child, x := range m.claims {
		if x.parent == id && !m.ended(child, now) {
			return false
		}
	}
	return true
}

func (m *model) expire(now time.Time) int {
	var list []quota.ID
	for id := range m.claims {
		if m.ended(id, now) {
			list = append(list, id)
		}
	}
	for _, id := range list {
		delete(m.claims, id)
	}
	return len(list)
}

func (m *model) tree(id quota.ID) []quota.ID {
	list := []quota.ID{id}
	for i := 0; i < len(list); i++ {
		for child, c := range m.claims {
			if c.parent == list[i] {
				list = append(list, child)
			}
		}
	}
	return list
}

// fits says whether an owner may hold more, of which those that stay below some
// owner do not count.
func (m *model) fits(owner, but string, more map[string]int64) bool {
	for class, n := range more {
		for o := owner; n > 0; o = m.owners[o] {
			if but != "-" && m.under(but, o) {
				break // as much as before
			}
			if l := m.limit(o, class); l != quota.Unlimited && m.used(o, class).Total()+n > int64(l) {
				return false
			}
			if o == "" {
				break
			}
		}
	}
	return true
}

// try does f, which says whether it fits; at the second attempt without what has
// expired, as the ledger does.
func (m *model) try(now time.Time, fits func() bool) bool {
	return fits() || m.expire(now) > 0 && fits()
}

// machine runs a ledger and its model side by side.
type machine struct {
	t     *rapid.T
	ctx   context.Context
	s     Store
	clock *Clock
	l     *quota.Ledger
	m     model
	reals int
}

// testModel: proves G21 to G25 with exact books after each step.
func testModel(t *testing.T, open func(testing.TB) Store) {
	rapid.Check(t, func(rt *rapid.T) {
		x := &machine{t: rt, ctx: t.Context(), s: open(t), clock: NewClock()}
		x.l = quota.New(x.s, quota.Options{Now: x.clock.Now})
		x.m = model{
			owners:   map[string]string{"a": "", "b": "", "a1": "a", "a2": "a", "a11": "a1"},
			defaults: map[string]quota.Limit{"x": 12, "y": quota.Unlimited},
			totals:   map[string]quota.Limit{"x": 25, "y": 40},
			limits:   map[[2]string]quota.Limit{}, claims: map[quota.ID]*claim{},
		}
		for _, o := range []string{"a", "b", "a1", "a2", "a11"} {
			x.check(x.l.AddOwner(x.ctx, quota.Owner{Name: o, Parent: x.m.owners[o]}), nil)
		}
		for _, name := range modelClasses {
			c := quota.NewClass(name, quota.Count)
			c.Default, c.Total = x.m.defaults[name], x.m.totals[name]
			x.check(x.l.Define(x.ctx, c), nil)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": x.reserve, "provision": x.provision, "resize": x.resize, "release": x.release,
			"transfer": x.transfer, "limit": x.setLimit, "expire": x.expire, "time": x.time, "": x.compare,
		})
	})
}

func (x *machine) check(err, want error) {
	x.t.Helper()
	if !sameError(err, want) {
		x.t.Fatalf("got %v, want %v", err, want)
	}
}

func (x *machine) owner() string {
	return rapid.SampledFrom([]string{"a", "b", "a1", "a2", "a11"}).Draw(x.t, "owner")
}

func (x *machine) anyClaim() (quota.ID, *claim) {
	if len(x.m.claims) == 0 {
		x.t.Skip("no claims")
	}
	ids := make([]quota.ID, 0, len(x.m.claims))
	for id := range x.m.claims {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	id := rapid.SampledFrom(ids).Draw(x.t, "claim")
	return id, x.m.claims[id]
}

// amounts draws amounts, in which a class may come twice.
func (x *machine) amounts(least int64) (list []quota.Amount, sum map[string]int64) {
	sum = make(map[string]int64)
	for range rapid.IntRange(1, 3).Draw(x.t, "classes") {
		a := quota.Amount{Class: rapid.SampledFrom(modelClasses).Draw(x.t, "class"), N: rapid.Int64Range(least, 8).Draw(x.t, "n")}
		list = append(list, a)
		sum[a.Class] += a.N
	}
	return list, sum
}

func (x *machine) reserve(*rapid.T) {
	list, sum := x.amounts(1)
	now := x.clock.Now()
	c := &claim{owner: x.owner(), n: sum}
	ttl := time.Duration(rapid.Int64Range(1, 20).Draw(x.t, "ttl")) * time.Second
	c.expires = now.Add(ttl)
	if rapid.Bool().Draw(x.t, "held") {
		x.reals++
		c.real = fmt.Sprint("real-", x.reals)
	}
	var want error
	if len(x.m.claims) > 0 && rapid.Bool().Draw(x.t, "child") {
		c.parent, _ = x.anyClaim()
		if x.m.ended(c.parent, now) {
			want = quota.ErrExpired
		}
	}
	if want == nil && !x.m.try(now, func() bool { return x.m.fits(c.owner, "-", sum) }) {
		want = quota.ErrExceeded
	}
	got, err := x.l.Claim(x.ctx, quota.Ask{Owner: c.owner, Amounts: list, Parent: c.parent, TTL: ttl, Real: c.real})
	x.check(err, want)
	if err == nil {
		x.m.claims[got.ID] = c
	}
}

func (x *machine) provision(*rapid.T) {
	id, c := x.anyClaim()
	var want error
	x.reals++
	name := fmt.Sprint("real-", x.reals)
	switch {
	case c.real != "":
		want = quota.ErrState
	case x.m.ended(id, x.clock.Now()):
		want = quota.ErrExpired
	}
	_, err := x.l.Provision(x.ctx, id, name, "")
	x.check(err, want)
	if err == nil {
		c.real = name
	}
}

func (x *machine) ref(id quota.ID, c *claim) quota.Ref {
	if c.real != "" && rapid.Bool().Draw(x.t, "by its real id") {
		return quota.ByReal(c.real)
	}
	return quota.ByID(id)
}

func (x *machine) resize(*rapid.T) {
	id, c := x.anyClaim()
	now := x.clock.Now()
	list, sum := x.amounts(0)
	more := make(map[string]int64)
	for class, n := range sum {
		more[class] = n - c.n[class]
	}
	var want error
	if x.m.ended(id, now) {
		want = quota.ErrExpired
	} else if !x.m.try(now, func() bool { return x.m.fits(c.owner, "-", more) }) {
		want = quota.ErrExceeded
	}
	_, err := x.l.Resize(x.ctx, x.ref(id, c), list, "")
	x.check(err, want)
	if err == nil {
		maps.Copy(c.n, sum)
	}
}

func (x *machine) release(*rapid.T) {
	id, c := x.anyClaim()
	list, err := x.l.Release(x.ctx, x.ref(id, c), "")
	x.check(err, nil)
	tree := x.m.tree(id)
	if len(list) != len(tree) {
		x.t.Fatalf("%d released, want %d", len(list), len(tree))
	}
	for _, id := range tree {
		delete(x.m.claims, id)
	}
}

func (x *machine) transfer(*rapid.T) {
	id, c := x.anyClaim()
	now, to, from := x.clock.Now(), x.owner(), c.owner
	var want error
	moved := func() map[string]int64 {
		sum := make(map[string]int64)
		for _, id := range x.m.tree(id) {
			if d := x.m.claims[id]; d.owner == from {
				for class, n := range d.n {
					sum[class] += n
				}
			}
		}
		return sum
	}
	if x.m.ended(id, now) {
		want = quota.ErrExpired
	} else if !x.m.try(now, func() bool { return x.m.fits(to, from, moved()) }) {
		want = quota.ErrExceeded
	}
	_, err := x.l.Transfer(x.ctx, x.ref(id, c), to, "")
	x.check(err, want)
	if err == nil {
		for _, id := range x.m.tree(id) {
			if d := x.m.claims[id]; d.owner == from {
				d.owner = to
			}
		}
	}
}

func (x *machine) setLimit(*rapid.T) {
	l := quota.OwnerLimit{
		Owner: x.owner(), Class: rapid.SampledFrom(modelClasses).Draw(x.t, "class"),
		Limit: quota.Limit(rapid.Int64Range(-1, 20).Draw(x.t, "limit")),
	}
	x.check(x.l.SetLimit(x.ctx, l), nil)
	x.m.limits[[2]string{l.Owner, l.Class}] = l.Limit
}

func (x *machine) expire(*rapid.T) {
	list, err := x.l.Expire(x.ctx)
	x.check(err, nil)
	if n := x.m.expire(x.clock.Now()); n != len(list) {
		x.t.Fatalf("%d expired, want %d", len(list), n)
	}
}

func (x *machine) time(*rapid.T) {
	x.clock.Jump(time.Duration(rapid.Int64Range(-10, 20).Draw(x.t, "jump")) * time.Second)
}

// compare looks at all sums.
func (x *machine) compare(*rapid.T) {
	must(x.t, &x.s)
	err := x.s.View(x.ctx, func(r quota.Reader) {
		for _, o := range []string{"", "a", "b", "a1", "a2", "a11"} {
			for _, class := range modelClasses {
				if got, want := r.Used(o, class), x.m.used(o, class); got != want {
					x.t.Fatalf("%s of %q: %+v, want %+v", class, o, got, want)
				}
			}
		}
		if got := len(r.Claims()); got != len(x.m.claims) {
			x.t.Fatalf("%d claims, want %d", got, len(x.m.claims))
		}
	})
	x.check(err, nil)
}
