package scope

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager returns a manager with limits.
func manager(t testing.TB, file Layer) *Manager {
	t.Helper()
	m, err := New(Options{Machine: Machine{Memory: 1 << 30, Descriptors: 1000}, Layers: map[string]Layer{"file": file}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a scope.
func open(t testing.TB, m *Manager, name string, parents ...*Scope) *Scope {
	t.Helper()
	s, err := m.Open(name, parents...)
	must(t, err)
	return s
}

func span(t testing.TB, s interface{ BeginSpan() (Span, error) }) Span {
	t.Helper()
	n, err := s.BeginSpan()
	must(t, err)
	return n
}

// wantErr wants an error of a kind.
func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// user is a Scope or a Span.
type user interface{ Used(k Kind) int64 }

// wantUsed wants uses of a kind.
func wantUsed(t testing.TB, k Kind, want map[user]int64) {
	t.Helper()
	for s, n := range want {
		if got := s.Used(k); got != n {
			t.Errorf("%+v uses %d of %v, want %d", s, got, k, n)
		}
	}
}

// wantEmpty wants no use of anything but what is in the list.
func wantEmpty(t testing.TB, m *Manager) {
	t.Helper()
	for _, e := range m.List() {
		if e.Used != 0 {
			t.Errorf("%s still uses %d of %v", e.Scope, e.Used, e.Kind)
		}
	}
}

// proves G1: every kind is limited, and what counts in a total is limited by that.
func TestKinds(t *testing.T) {
	for k := range Kind(NumKinds) {
		m := manager(t, Layer{"system": {k: Fixed(3)}})
		s := open(t, m, "service:a")
		for _, part := range parts(k) {
			must(t, s.Reserve(part, 1))
		}
		must(t, s.Reserve(parts(k)[0], 3-int64(len(parts(k)))))
		err := s.Reserve(parts(k)[0], 1)
		e, ok := errors.AsType[*LimitError](err)
		if !ok || e.Kind != k || e.Used != 3 || e.Asked != 1 || e.Limit != 3 || e.Scope != SystemName {
			t.Errorf("%v: error is %+v", k, err)
		}
		if got, err := ParseKind(k.String()); got != k || err != nil {
			t.Errorf("%v reads as %v, %v", k, got, err)
		}
		must(t, s.Close())
		wantEmpty(t, m)
	}
	if _, err := ParseKind("cores"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// parts returns the kinds that count in one.
func parts(k Kind) []Kind {
	if k == Connections {
		return []Kind{Inbound, Outbound}
	}
	if k == Tasks {
		return []Kind{TasksHigh, TasksMedium, TasksLow}
	}
	return []Kind{k}
}

// proves G1: limits are fixed, scaled by the machine, or words, and the origin of each
// is told.
func TestLimits(t *testing.T) {
	m, err := New(Options{
		Machine: Machine{Memory: 1 << 30, Descriptors: 1000},
		Layers: map[string]Layer{
			"default": {
				"system":  {Memory: share5(t, "50%"), Descriptors: share5(t, "5%"), Tasks: Fixed(7)},
				"service": {Memory: Fixed(10), Inbound: Fixed(1)},
			},
			"file": {"service": {Memory: Unlimited()}, "service:a": {Memory: Block()}, "system": {Tasks: Fixed(0)}},
		},
	})
	must(t, err)
	open(t, m, "service:a")
	open(t, m, "service:b")
	for _, c := range []struct {
		scope         string
		kind          Kind
		limit, origin string
	}{
		{"system", Memory, "536870912", "default, 50% of the machine's"},
		{"system", Descriptors, "50", "default, 5% of the machine's"},
		{"system", Tasks, "0", "file"},
		{"system", Inbound, "unlimited", "none"},
		{"service:a", Memory, "block", "file"},
		{"service:a", Inbound, "1", "default"},
		{"service:b", Memory, "unlimited", "file"},
	} {
		list, err := m.Show(c.scope)
		must(t, err)
		if e := list[c.kind]; e.Limit != c.limit || e.Origin != c.origin || e.Kind != c.kind || e.Scope != c.scope {
			t.Errorf("%+v: %+v", c, e)
		}
	}
	for _, name := range []string{"system", "service:a", "service:b"} {
		list, err := m.Show(name)
		must(t, err)
		if got := m.Explain(name); !slices.Equal(got, list) {
			t.Errorf("%s is explained as %+v, and is %+v", name, got, list)
		}
	}
	wantErr(t, open(t, m, "service:a").ReserveMemory(1, MaxPriority), ErrLimit)
	must(t, open(t, m, "service:a").ReserveMemory(0, MaxPriority))
	wantErr(t, m.System().Reserve(TasksLow, 1), ErrLimit)
	must(t, open(t, m, "service:b").ReserveMemory(1000, MaxPriority))
	_, err = New(Options{Layers: map[string]Layer{"default": {"system": {Tasks: share5(t, "5%")}}}})
	wantErr(t, err, ErrInvalid)
	_, err = New(Options{Layers: map[string]Layer{"nowhere": {}}})
	wantErr(t, err, ErrInvalid)
}

func share5(t *testing.T, s string) Limit {
	t.Helper()
	l, err := ParseLimit(s)
	must(t, err)
	return l
}

// proves G1: a limit that is lowered below the use refuses what is new and no release;
// spans see what the limit is now, also when it is raised.
func TestLimitsChange(t *testing.T) {
	m := manager(t, Layer{"service": {Memory: Fixed(100)}})
	s := open(t, m, "service:a")
	n := span(t, s)
	must(t, n.ReserveMemory(80, MaxPriority))
	must(t, m.Set("service:a", Limits{Memory: Fixed(50)}))
	wantErr(t, n.ReserveMemory(1, MaxPriority), ErrLimit)
	must(t, n.ReleaseMemory(40))
	must(t, n.ReserveMemory(10, MaxPriority))
	wantErr(t, n.ReserveMemory(1, MaxPriority), ErrLimit)
	must(t, m.SetLayer("file", Layer{"service": {Memory: Fixed(500)}}))
	wantErr(t, n.ReserveMemory(1, MaxPriority), ErrLimit) // what was set decides
	must(t, m.Set("service:a", Limits{Memory: {}}))
	must(t, n.ReserveMemory(450, MaxPriority))
	must(t, m.Set("service", Limits{Memory: Fixed(1)})) // of each
	if got := open(t, m, "service:new").Limit(Memory); got != 1 {
		t.Errorf("limit is %d", got)
	}
	wantErr(t, m.Set("service", Limits{Tasks: share5(t, "5%")}), ErrInvalid)
	wantErr(t, m.Set("", Limits{}), ErrInvalid)
	wantErr(t, m.SetLayer("nowhere", nil), ErrInvalid)
	must(t, n.Done())
	wantEmpty(t, m)
}

// proves G2: what is refused, by whatever scope, changes no count anywhere; nothing
// goes below zero, and a second release is an error that releases nothing.
func TestRefusedChangesNothing(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(1000), Tasks: Fixed(2)}, "service:a": {Memory: Fixed(900)}})
	a, b := open(t, m, "service:a"), open(t, m, "service:b")
	c := open(t, m, "client:1", a, b)
	s := span(t, c)
	must(t, s.ReserveAll(MaxPriority, Amount{Memory, 800}, Amount{TasksHigh, 1}))
	wantErr(t, s.ReserveMemory(150, MaxPriority), ErrLimit) // a
	wantErr(t, b.ReserveMemory(300, MaxPriority), ErrLimit) // system
	wantErr(t, s.ReserveAll(MaxPriority, Amount{Memory, 10}, Amount{TasksLow, 2}), ErrLimit)
	wantErr(t, s.Reserve(Tasks, 1), ErrInvalid)
	wantUsed(t, Memory, map[user]int64{m.System(): 800, a: 800, b: 800, c: 800, s: 800})
	wantUsed(t, Tasks, map[user]int64{m.System(): 1, a: 1, b: 1, c: 1, s: 1})
	wantErr(t, c.ReleaseMemory(1), ErrNotReserved) // it is the span's
	wantErr(t, m.System().ReleaseMemory(1), ErrNotReserved)
	wantErr(t, s.ReleaseAll(Amount{Memory, 800}, Amount{TasksHigh, 2}), ErrNotReserved)
	must(t, s.ReleaseAll(Amount{Memory, 800}, Amount{TasksHigh, 1}))
	wantErr(t, s.ReleaseAll(Amount{Memory, 800}, Amount{TasksHigh, 1}), ErrNotReserved)
	wantEmpty(t, m)
}

// proves G3: the priority's share, to the unit, and where products do not fit 64 bits.
func TestMemoryPriority(t *testing.T) {
	for _, c := range []struct {
		limit    int64
		priority uint8
		most     int64
	}{
		{1000, 101, 398},
		{1000, 152, 597},
		{1000, 203, 796},
		{1000, 255, 1000},
		{1000, 0, 3},
		{255, 0, 0},
		{math.MaxInt64 - 1, 255, math.MaxInt64 - 1},
		{math.MaxInt64 - 1, 127, (math.MaxInt64 - 1) / 2},
		{math.MaxInt64 - 255, 0, (math.MaxInt64 - 255) / 256},
	} {
		m := manager(t, Layer{"system": {Memory: Fixed(c.limit)}})
		s := open(t, m, "service:a")
		wantErr(t, s.ReserveMemory(c.most+1, c.priority), ErrLimit)
		must(t, s.ReserveMemory(c.most, c.priority))
		wantErr(t, s.ReserveMemory(1, c.priority), ErrLimit)
		wantErr(t, s.ReserveMemory(math.MaxInt64, c.priority), ErrLimit)
	}
	m := manager(t, nil)
	must(t, m.System().ReserveMemory(math.MaxInt64, 0)) // unlimited
	wantErr(t, m.System().ReserveMemory(1, MaxPriority), ErrLimit)
	wantErr(t, m.System().ReserveMemory(-1, MaxPriority), ErrInvalid)
}

// proves G5: a connection is Transient's until it moves to its client, all of it or
// nothing, and before its deadline.
func TestConnectionMoves(t *testing.T) {
	now := time.Unix(1000, 0)
	m, err := New(Options{
		Now: func() time.Time { return now },
		Layers: map[string]Layer{"file": {
			"system": {Connections: Fixed(2)}, "transient": {Inbound: Fixed(1)}, "client:small": {Memory: Fixed(10)},
			"client:tiny": {Descriptors: Fixed(1)},
		}},
	})
	must(t, err)
	connect := func(name string) *Scope {
		t.Helper()
		s, err := m.OpenConnection(name, Inbound, now.Add(time.Second), Amount{Memory, 20}, Amount{Descriptors, 2})
		must(t, err)
		return s
	}
	c := connect("connection:1")
	_, err = m.OpenConnection("connection:2", Inbound, now)
	wantErr(t, err, ErrLimit)
	_, err = m.OpenConnection("connection:1", Inbound, now)
	wantErr(t, err, ErrInvalid)
	_, err = m.OpenConnection("connection:3", TasksLow, now)
	wantErr(t, err, ErrInvalid)
	small, big := open(t, m, "client:small"), open(t, m, "client:big")
	part := span(t, c)
	must(t, part.ReserveMemory(5, 0))
	wantErr(t, c.Move(big, small), ErrLimit)
	wantUsed(t, Memory, map[user]int64{m.System(): 25, m.Transient(): 25, small: 0, big: 0})
	wantUsed(t, Inbound, map[user]int64{m.System(): 1, m.Transient(): 1, small: 0, big: 0})
	tiny := open(t, m, "client:tiny")
	wantErr(t, c.Move(big, tiny), ErrLimit) // after it took the memory
	for k := range Kind(NumKinds) {
		wantUsed(t, k, map[user]int64{small: 0, big: 0, tiny: 0})
	}
	must(t, c.Move(big)) // with System full of nothing else, it counts there once
	wantUsed(t, Memory, map[user]int64{m.System(): 25, m.Transient(): 0, big: 25})
	wantUsed(t, Descriptors, map[user]int64{m.System(): 2, m.Transient(): 0, big: 2})
	must(t, part.Done())
	wantUsed(t, Memory, map[user]int64{m.System(): 20, big: 20})
	late := connect("connection:2")
	now = now.Add(2 * time.Second)
	wantErr(t, late.Move(big), ErrExpired)
	if list := m.Expired(); len(list) != 1 || list[0] != late {
		t.Errorf("expired: %v", list)
	}
	must(t, late.Close())
	must(t, c.Close())
	wantEmpty(t, m)
}

// proves G6: the error names scope, kind, used, asked, limit and the setting; it is
// counted, and told as often as it may be.
func TestRefusalIsTold(t *testing.T) {
	now := time.Unix(1000, 0)
	var told []*LimitError
	var mores []uint64
	m, err := New(Options{
		Now:     func() time.Time { return now },
		Setting: func(scope string, k Kind) string { return "scopes." + scope + " " + k.String() },
		Refused: func(e *LimitError, more uint64) { told, mores = append(told, e), append(mores, more) },
		Layers:  map[string]Layer{"file": {"service": {Memory: Fixed(10)}}},
	})
	must(t, err)
	a := open(t, m, "service:a")
	must(t, a.ReserveMemory(7, MaxPriority))
	for range 5 {
		err = span(t, a).ReserveMemory(4, 254)
		want := LimitError{"service:a", Memory, 7, 4, 9, 10, "file", "scopes.service:a memory"}
		if e, ok := errors.AsType[*LimitError](err); !ok || *e != want || !errors.Is(err, ErrLimit) {
			t.Fatalf("error is %+v", err)
		}
	}
	for _, part := range []string{"service:a", "memory", "7 used", "4 asked", "the 9 that this priority may use of the limit of 10 (file)", "scopes.service:a memory"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
	if len(told) != 1 || mores[0] != 0 || m.Refused(Memory) != 5 {
		t.Errorf("told %d times (%v), counted %d", len(told), mores, m.Refused(Memory))
	}
	if list, _ := m.Show("service:a"); list[Memory].Refused != 5 {
		t.Errorf("%+v", list[Memory])
	}
	now = now.Add(10 * time.Second)
	wantErr(t, a.ReserveMemory(4, MaxPriority), ErrLimit)
	if len(told) != 2 || mores[1] != 4 {
		t.Errorf("told %d times, %v", len(told), mores)
	}
	for i := range 100 { // many scopes: at most maxTold in an interval
		wantErr(t, open(t, m, "service:"+strings.Repeat("x", i+1)).ReserveMemory(11, MaxPriority), ErrLimit)
	}
	if len(told) != 1+maxTold {
		t.Errorf("told %d times", len(told))
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"unlimited", "block", "12", "64MiB", "5%", "0.125%", "1 GB", "-1", "", "9223372036854775807", "8388608TiB", "1e3%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLimit(s)
		if err != nil {
			return
		}
		again, err := ParseLimit(l.String())
		if err != nil || again != l {
			t.Errorf("%q is %v, which reads as %v, %v", s, l, again, err)
		}
		for k := range Kind(NumKinds) {
			if n := l.on(k, Machine{math.MaxInt64, 1000}); n < 0 {
				t.Errorf("%q of %v is %d", s, k, n)
			}
		}
	})
}

// proves G1: nor does a scope refuse a release of its own, nor the end of what stands below
// it, of any kind, while it is above a limit.
func TestReleaseAboveLimit(t *testing.T) {
	m := manager(t, nil)
	s := open(t, m, "service:a")
	for k := range Kind(NumKinds) {
		if !k.reservable() {
			continue
		}
		n := span(t, s)
		must(t, n.Reserve(k, 3))
		must(t, s.Reserve(k, 5))
		for _, name := range []string{"service:a", SystemName} {
			must(t, m.Set(name, Limits{k: Block()}))
		}
		must(t, s.Release(k, 2))
		must(t, n.Release(k, 1))
		must(t, n.Done())
		must(t, s.Release(k, 3))
		wantErr(t, s.Reserve(k, 1), ErrLimit)
	}
	wantEmpty(t, m)
}
