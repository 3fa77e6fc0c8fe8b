package quota_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/quota"
)

// mirror is what the promises say, in numbers without bounds: who holds what, and the
// limits. Nothing expires in it.
type mirror struct {
	above  map[string]string
	limits map[[2]string]quota.Limit
	class  map[string]quota.Class
	held   map[quota.ID]*mirrored
}

type mirrored struct {
	owner string
	n     map[string]int64
	calls int // under request ids
}

func (m *mirror) used(owner, class string) *big.Int {
	sum := new(big.Int)
	for _, c := range m.held {
		for o := c.owner; ; o = m.above[o] {
			if o == owner {
				sum.Add(sum, big.NewInt(c.n[class]))
			}
			if o == "" || o == owner {
				break
			}
		}
	}
	return sum
}

func (m *mirror) limit(owner, class string) quota.Limit {
	if owner == "" {
		return m.class[class].Total
	}
	if l, ok := m.limits[[2]string{owner, class}]; ok {
		return l
	}
	return m.class[class].Default
}

// over says whether an owner holds more than its limit, or than can be counted.
func (m *mirror) over(owner, class string) bool {
	l := m.limit(owner, class)
	if l == quota.Unlimited {
		l = math.MaxInt64
	}
	return m.used(owner, class).Cmp(big.NewInt(int64(l))) > 0
}

// try changes what a claim has and says whether somebody who then holds more than
// before holds too much; then all is as it was.
func (m *mirror) try(id quota.ID, c *mirrored) bool {
	old := m.held[id]
	before := make(map[[2]string]*big.Int)
	each := func(f func(key [2]string)) {
		for class := range m.class {
			for o := range m.above {
				f([2]string{o, class})
			}
			f([2]string{"", class})
		}
	}
	each(func(k [2]string) { before[k] = m.used(k[0], k[1]) })
	m.held[id] = c
	fits := true
	each(func(k [2]string) {
		fits = fits && (m.used(k[0], k[1]).Cmp(before[k]) <= 0 || !m.over(k[0], k[1]))
	})
	if !fits {
		delete(m.held, id)
		if old != nil {
			m.held[id] = old
		}
	}
	return fits
}

// admits says whether so much may be that of one claim, that had so much.
func admits(c quota.Class, n, had int64) bool {
	return n >= c.Min && n%c.Step == 0 && (c.Max == quota.Unlimited || n <= int64(c.Max) || n <= had)
}

var (
	someLimits  = rapid.SampledFrom([]quota.Limit{0, 1, 6, 20, math.MaxInt64 / 2, math.MaxInt64, quota.Unlimited})
	someAmounts = rapid.SampledFrom([]int64{1, 2, 3, 6, 12, math.MaxInt64 / 2, math.MaxInt64})
)

// mirroring runs a ledger and its mirror.
type mirroring struct {
	*rapid.T
	r     *rig
	m     mirror
	done  []func() error // calls that were done, to be repeated
	of    []quota.ID     // their claims
	count int
}

func (x *mirroring) owner() string {
	return fmt.Sprint("o", rapid.IntRange(0, len(x.m.above)-1).Draw(x.T, "owner"))
}

func (x *mirroring) pick() (quota.ID, *mirrored) {
	var ids []quota.ID
	list, err := x.r.Claims(x.r.t.Context(), "")
	if err != nil || len(list) != len(x.m.held) {
		x.Fatalf("%d claims, %v; want %d", len(list), err, len(x.m.held))
	}
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	if len(ids) == 0 {
		x.Skip("no claims")
	}
	id := rapid.SampledFrom(ids).Draw(x.T, "claim")
	return id, x.m.held[id]
}

// call does a call under a new request id; it is to be refused as want says.
func (x *mirroring) call(id quota.ID, want error, f func(request string) (*quota.Claim, error)) quota.ID {
	x.count++
	request := fmt.Sprint("request ", x.count)
	c, err := f(request)
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		x.Fatalf("%v, want %v", err, want)
	}
	if err != nil {
		return 0
	}
	if c != nil {
		id = c.ID
	}
	x.done = append(x.done, func() error {
		again, err := f(request)
		if err == nil && c != nil && again.ID != c.ID {
			return fmt.Errorf("claim %v, was %v", again.ID, c.ID)
		}
		return err
	})
	x.of = append(x.of, id)
	return id
}

func (x *mirroring) claim(*rapid.T) {
	owner, n, class := x.owner(), someAmounts.Draw(x.T, "n"), rapid.SampledFrom([]string{"x", "y"}).Draw(x.T, "class")
	next := &mirrored{owner: owner, n: map[string]int64{class: n}, calls: 1}
	var want error
	const fresh = quota.ID(math.MaxUint64)
	if !admits(x.m.class[class], n, 0) {
		want = quota.ErrInvalid
	} else if !x.m.try(fresh, next) {
		want = quota.ErrExceeded
	}
	delete(x.m.held, fresh)
	id := x.call(0, want, func(request string) (*quota.Claim, error) {
		return x.r.Reserve(x.r.t.Context(), quota.Ask{Owner: owner, Amounts: []quota.Amount{{Class: class, N: n}}, Request: request})
	})
	if want == nil {
		x.m.held[id] = next
	}
}

func (x *mirroring) resize(*rapid.T) {
	id, c := x.pick()
	if c.calls >= quota.MaxRequests {
		x.Skip("no more requests are remembered")
	}
	n, class := someAmounts.Draw(x.T, "n"), rapid.SampledFrom([]string{"x", "y"}).Draw(x.T, "class")
	next := &mirrored{owner: c.owner, n: map[string]int64{"x": c.n["x"], "y": c.n["y"]}, calls: c.calls + 1}
	next.n[class] = n
	var want error
	if !admits(x.m.class[class], n, c.n[class]) {
		want = quota.ErrInvalid
	} else if !x.m.try(id, next) {
		want = quota.ErrExceeded
	}
	x.call(id, want, func(request string) (*quota.Claim, error) {
		return x.r.Resize(x.r.t.Context(), quota.ByID(id), []quota.Amount{{Class: class, N: n}}, request)
	})
}

func (x *mirroring) transfer(*rapid.T) {
	id, c := x.pick()
	if c.calls >= quota.MaxRequests {
		x.Skip("no more requests are remembered")
	}
	owner := x.owner()
	var want error
	if !x.m.try(id, &mirrored{owner: owner, n: c.n, calls: c.calls + 1}) {
		want = quota.ErrExceeded
	}
	x.call(id, want, func(request string) (*quota.Claim, error) {
		return x.r.Transfer(x.r.t.Context(), quota.ByID(id), owner, request)
	})
}

func (x *mirroring) release(*rapid.T) {
	id, _ := x.pick()
	x.call(id, nil, func(request string) (*quota.Claim, error) {
		_, err := x.r.Release(x.r.t.Context(), quota.ByID(id), request)
		return nil, err
	})
	delete(x.m.held, id)
}

// again repeats a call: it changes nothing, whatever was done since.
func (x *mirroring) again(*rapid.T) {
	if len(x.done) == 0 {
		x.Skip("nothing was done")
	}
	i := rapid.IntRange(0, len(x.done)-1).Draw(x.T, "call")
	if err := x.done[i](); err != nil && (x.m.held[x.of[i]] != nil || !errors.Is(err, quota.ErrNotFound)) {
		x.Fatalf("again: %v", err)
	}
}

// limits sets a limit or defines a class anew; who is told of are exactly those who
// hold more than a limit that has become lower, or was set as it is.
func (x *mirroring) limits(*rapid.T) {
	class, l := rapid.SampledFrom([]string{"x", "y"}).Draw(x.T, "class"), someLimits.Draw(x.T, "limit")
	was := make(map[string]quota.Limit)
	for o := range x.m.above {
		was[o] = x.m.limit(o, class)
	}
	was[""] = x.m.limit("", class)
	x.r.overs = nil
	var err error
	one := "" // whose limit is set; "": everybody's who has none, and the total
	if rapid.Bool().Draw(x.T, "of an owner") {
		o := quota.OwnerLimit{Owner: x.owner(), Class: class, Limit: l}
		x.m.limits[[2]string{o.Owner, class}] = l
		one = o.Owner
		err = x.r.SetLimit(x.r.t.Context(), o)
	} else {
		c := x.m.class[class]
		c.Total, c.Default = l, someLimits.Draw(x.T, "default")
		x.m.class[class] = c
		err = x.r.Define(x.r.t.Context(), c)
	}
	if err != nil {
		x.Fatal(err)
	}
	told := make(map[string]quota.Over)
	for _, o := range x.r.overs {
		told[o.Owner] = o
	}
	for o, before := range was {
		now := x.m.limit(o, class)
		_, own := x.m.limits[[2]string{o, class}]
		set := one == o || one == "" && !own
		lower := set && now != quota.Unlimited && (before == quota.Unlimited || now <= before)
		e, ok := told[o]
		if ok != (lower && x.m.over(o, class)) {
			x.Fatalf("%q, from %v to %v, holds %v: told %v", o, before, now, x.m.used(o, class), ok)
		}
		if ok && (e.Limit != now || x.m.used(o, class).Int64() != e.Used || e.By() <= 0) {
			x.Fatalf("told %+v", e)
		}
	}
}

func (x *mirroring) compare(*rapid.T) {
	if err := x.r.store.Verify(); err != nil {
		x.Fatal(err)
	}
	list, err := x.r.Usage(x.r.t.Context(), "")
	if err != nil || len(list) != 2*(len(x.m.above)+1) {
		x.Fatal(len(list), err)
	}
	for _, u := range list {
		if want := x.m.used(u.Owner, u.Class); !want.IsInt64() || want.Int64() != u.Sum.Total() || u.Limit != x.m.limit(u.Owner, u.Class) {
			x.Fatalf("%+v, want %v of %v", u, want, x.m.limit(u.Owner, u.Class))
		}
	}
}

// proves G20, G21, G22, G23, G24, G25: any owner tree, any limits, minima, maxima and
// steps, numbers up to the largest, and calls that are repeated at any later time.
func TestMirror(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		x := &mirroring{T: rt, r: newRig(t)}
		x.m = mirror{
			above: make(map[string]string), limits: make(map[[2]string]quota.Limit),
			class: make(map[string]quota.Class), held: make(map[quota.ID]*mirrored),
		}
		for i := range rapid.IntRange(1, 6).Draw(rt, "owners") {
			o := quota.Owner{Name: fmt.Sprint("o", i)}
			if k := rapid.IntRange(0, i).Draw(rt, "parent"); k < i {
				o.Parent = fmt.Sprint("o", k)
			}
			x.m.above[o.Name] = o.Parent
			x.r.owner(o.Name, o.Parent)
		}
		for _, name := range []string{"x", "y"} {
			c := quota.NewClass(name, quota.Count)
			c.Total, c.Default = someLimits.Draw(rt, "total"), someLimits.Draw(rt, "default")
			c.Min, c.Step = rapid.Int64Range(1, 3).Draw(rt, "min"), rapid.Int64Range(1, 3).Draw(rt, "step")
			c.Max = rapid.SampledFrom([]quota.Limit{3, 6, math.MaxInt64, quota.Unlimited}).Draw(rt, "max")
			x.m.class[name] = c
			x.r.is(x.r.Define(t.Context(), c), nil)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"claim": x.claim, "resize": x.resize, "transfer": x.transfer, "release": x.release,
			"again": x.again, "limits": x.limits, "": x.compare,
		})
	})
}
