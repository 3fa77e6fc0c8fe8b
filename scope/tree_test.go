package scope

import (
	"errors"
	"testing"
)

// proves G4: done gives all back; a span outlives its owner's closing and its owner's
// end, keeps what it has, gets nothing more, and is done once.
func TestSpans(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	outer := span(t, a)
	inner := span(t, outer)
	must(t, outer.ReserveMemory(3, 0))
	must(t, inner.ReserveMemory(5, 0))
	must(t, inner.Reserve(Outbound, 2))
	must(t, outer.Done())
	wantUsed(t, Memory, map[user]int64{m.System(): 5, a: 5, inner: 5})
	wantErr(t, outer.Done(), ErrClosed)
	wantErr(t, outer.ReserveMemory(1, 0), ErrClosed)
	wantErr(t, outer.ReleaseMemory(1), ErrClosed)
	wantErr(t, inner.ReserveMemory(1, 0), ErrClosed)
	must(t, a.Close())
	if _, err := a.BeginSpan(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, err := inner.BeginSpan(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	wantErr(t, inner.Reserve(Outbound, 1), ErrClosed)
	must(t, inner.ReleaseMemory(1))
	wantUsed(t, Memory, map[user]int64{m.System(): 4})
	must(t, inner.Done())
	wantErr(t, inner.Done(), ErrClosed)
	wantEmpty(t, m)
	if _, err := m.Show("service:a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// proves G4: a span that is done stays done when another is begun in its place.
func TestDoneSpanIsNoOther(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	old := span(t, a)
	must(t, old.Done())
	now := span(t, a)
	must(t, now.ReserveMemory(5, 0))
	wantErr(t, old.Done(), ErrClosed)
	wantErr(t, old.ReserveMemory(1, 0), ErrClosed)
	wantErr(t, old.ReleaseMemory(5), ErrClosed)
	if _, err := old.BeginSpan(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	wantUsed(t, Memory, map[user]int64{m.System(): 5, now: 5, old: 0})
	must(t, now.Done())
	wantEmpty(t, m)
}

// proves G7: one name is one scope, as long as anybody has it open or anything stands
// below it; then it is gone.
func TestNames(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	if b := open(t, m, "service:a"); b != a {
		t.Fatal("two scopes of one name")
	}
	must(t, a.ReserveMemory(800, 0))
	must(t, a.Close())
	wantUsed(t, Memory, map[user]int64{a: 800})
	c := open(t, m, "client:1", a)
	must(t, c.ReserveMemory(5, 0))
	must(t, a.Close())
	wantErr(t, a.Close(), ErrClosed)
	wantErr(t, c.ReserveMemory(1, 0), ErrClosed)
	wantUsed(t, Memory, map[user]int64{m.System(): 5, a: 5})
	if b := open(t, m, "service:a"); b != a {
		t.Fatal("it was forgotten with something below it")
	}
	must(t, c.ReserveMemory(1, 0))
	must(t, a.Close())
	must(t, c.Close())
	if _, err := m.Show("service:a"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if b := open(t, m, "service:a"); b == a {
		t.Error("it was not forgotten")
	}
	wantErr(t, m.System().Close(), ErrInvalid)
	for _, name := range []string{"", SystemName, TransientName} {
		if _, err := m.Open(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	wantEmpty(t, m)
}

// A scope is never put below itself, twice below one, or below what is not open.
func TestMoveIsChecked(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	b := open(t, m, "client:b", a)
	other := open(t, manager(t, nil), "service:a")
	gone := open(t, m, "service:gone")
	must(t, gone.Close())
	for _, parents := range [][]*Scope{nil, {b}, {a}, {m.System(), m.System()}, {other}, {gone}, {nil}} {
		if err := a.Move(parents...); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrClosed) {
			t.Errorf("moved: %v", err)
		}
	}
	wantErr(t, m.System().Move(a), ErrInvalid)
	wantErr(t, gone.Move(a), ErrClosed)
}
