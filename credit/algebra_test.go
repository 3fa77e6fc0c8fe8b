package credit_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/credit"
)

// credits draws credits of a type: few positions, so that they meet often, and
// the ends of the range.
func credits(t *credit.Type) *rapid.Generator[credit.Credit] {
	all := t.All()[0]
	limit := min(all.End, 12)
	return rapid.Custom(func(rt *rapid.T) credit.Credit {
		spans := make([]credit.Span, rapid.IntRange(0, 4).Draw(rt, "spans"))
		for i := range spans {
			first := rapid.Uint64Range(0, limit).Draw(rt, "first")
			end := rapid.Uint64Range(0, limit).Draw(rt, "end")
			if rapid.IntRange(0, 5).Draw(rt, "to the end") == 0 {
				end = all.End
			}
			modes := credit.Modes(rapid.IntRange(0, int(all.Modes)).Draw(rt, "modes"))
			spans[i] = credit.Span{First: first, End: end, Modes: modes}
		}
		return credit.Make(spans...)
	})
}

// atoms lists what a credit has at its first positions and at its end: the
// plain meaning to compare the algebra with.
func atoms(c credit.Credit) [14]credit.Modes {
	var out [14]credit.Modes
	for i := range out {
		pos := uint64(i)
		if i == 13 {
			pos = credit.End - 1
		}
		for _, s := range c {
			if s.First <= pos && pos < s.End {
				out[i] |= s.Modes
			}
		}
	}
	return out
}

// proves G45: the algebra by which books are kept has the laws of sets, for each
// type; conflict is symmetric, grows with what it is of, and is that of the atoms.
func TestAlgebra(t *testing.T) {
	for _, typ := range []*credit.Type{credit.Access, credit.Space, credit.Activation} {
		t.Run(typ.Name(), func(t *testing.T) {
			gen := credits(typ)
			rapid.Check(t, func(rt *rapid.T) {
				a, b, c := gen.Draw(rt, "a"), gen.Draw(rt, "b"), gen.Draw(rt, "c")
				same := func(law string, x, y credit.Credit) {
					if !x.Equal(y) {
						rt.Fatalf("%s: %v is not %v", law, x, y)
					}
				}
				same("meet commutes", a.Meet(b), b.Meet(a))
				same("join commutes", a.Join(b), b.Join(a))
				same("meet associates", a.Meet(b).Meet(c), a.Meet(b.Meet(c)))
				same("join associates", a.Join(b).Join(c), a.Join(b.Join(c)))
				same("meet distributes", a.Meet(b.Join(c)), a.Meet(b).Join(a.Meet(c)))
				same("join distributes", a.Join(b.Meet(c)), a.Join(b).Meet(a.Join(c)))
				same("meet is idempotent", a.Meet(a), a)
				same("join is idempotent", a.Join(a), a)
				same("absorption", a.Join(a.Meet(b)), a)
				same("nothing of itself is left", a.Diff(a), nil)
				same("nothing taken away", a.Diff(nil), a)
				same("away from nothing", credit.Credit(nil).Diff(a), nil)
				same("meet by difference", a.Diff(a.Diff(b)), a.Meet(b))
				same("what is left does not meet", a.Diff(b).Meet(b), nil)
				same("the parts are the whole", a.Diff(b).Join(a.Meet(b)), a)
				if a.Has(b) != a.Join(b).Equal(a) {
					rt.Fatalf("%v has %v: %v", a, b, a.Has(b))
				}
				meets(rt, typ, a, b, c)
			})
		})
	}
}

func meets(rt *rapid.T, typ *credit.Type, a, b, c credit.Credit) {
	x, y, meet, join, diff, against := atoms(a), atoms(b), atoms(a.Meet(b)), atoms(a.Join(b)), atoms(a.Diff(b)), atoms(typ.Against(a, b))
	for i := range x {
		if meet[i] != x[i]&y[i] || join[i] != x[i]|y[i] || diff[i] != x[i]&^y[i] {
			rt.Fatalf("%v and %v at %d: meet %x join %x diff %x", a, b, i, meet[i], join[i], diff[i])
		}
		if against[i]&^x[i] != 0 || against[i] != 0 && y[i] == 0 {
			rt.Fatalf("what of %v is against %v at %d: %x", a, b, i, against[i])
		}
	}
	if typ.Conflict(a, b) != typ.Conflict(b, a) || typ.Conflict(a, b) == typ.Against(a, b).Empty() {
		rt.Fatalf("conflict of %v and %v: %v, %v, %v", a, b, typ.Conflict(a, b), typ.Conflict(b, a), typ.Against(a, b))
	}
	if typ.Conflict(a, b.Join(c)) != (typ.Conflict(a, b) || typ.Conflict(a, c)) {
		rt.Fatalf("conflict of %v with %v and %v is not that with both", a, b, c)
	}
	if typ.Conflict(a.Diff(typ.Against(a, b)), b) {
		rt.Fatalf("%v without what is against %v conflicts with it", a, b)
	}
}

// proves G49: readers share and let others append; a writer or deleter is alone,
// where it is.
func TestAccessModes(t *testing.T) {
	modes := []credit.Modes{credit.Read, credit.Append, credit.Write, credit.Delete}
	want := [][]bool{
		{false, false, true, true},
		{false, true, true, true},
		{true, true, true, true},
		{true, true, true, true},
	}
	for i, x := range modes {
		for j, y := range modes {
			a := credit.Make(credit.Span{First: 0, End: 10, Modes: x})
			b := credit.Make(credit.Span{First: 9, End: 20, Modes: y})
			if got := credit.Access.Conflict(a, b); got != want[i][j] {
				t.Errorf("%s against %s: %v", credit.Access.Format(a), credit.Access.Format(b), got)
			}
			if b := credit.Make(credit.Span{First: 10, End: 20, Modes: y}); credit.Access.Conflict(a, b) {
				t.Errorf("%s conflicts with %s", credit.Access.Format(a), credit.Access.Format(b))
			}
		}
	}
}

// proves G44: a floor is never lowered, and hits its atoms and no others.
func TestGuard(t *testing.T) {
	r := credit.Resource{Type: credit.Access, ID: 1}
	var high credit.Guard
	block := credit.Make(credit.Span{First: 0, End: 10, Modes: credit.Write})
	high.Raise(r, block, credit.Token{5})
	high.Raise(r, block, credit.Token{3})
	if err := high.Check(r, block, credit.Token{4}); err == nil {
		t.Error("a floor was lowered")
	}
	rapid.Check(t, func(rt *rapid.T) {
		var g credit.Guard
		var floors [14][8]uint64 // by position and mode
		for range rapid.IntRange(0, 6).Draw(rt, "floors") {
			c, n := credits(credit.Access).Draw(rt, "of"), rapid.Uint64Range(1, 5).Draw(rt, "token")
			g.Raise(r, c, credit.Token{n})
			for i, m := range atoms(c) {
				for bit := range 8 {
					if m&(1<<bit) != 0 {
						floors[i][bit] = max(floors[i][bit], n)
					}
				}
			}
		}
		c, n := credits(credit.Access).Draw(rt, "work"), rapid.Uint64Range(0, 6).Draw(rt, "token")
		stale := false
		for i, m := range atoms(c) {
			for bit := range 8 {
				stale = stale || m&(1<<bit) != 0 && n < floors[i][bit]
			}
		}
		if err := g.Check(r, c, credit.Token{n}); (err != nil) != stale {
			rt.Fatalf("work on %v under %d: %v; stale: %v", c, n, err, stale)
		}
		g.Forget(r)
		if err := g.Check(r, c, credit.Token{}); err != nil {
			rt.Fatalf("forgotten: %v", err)
		}
	})
}
