package scope

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// proves G2: a charge counts in all scopes above, whatever the limits are, and refuses
// what is new; less of it is never refused, and more than can be counted changes nothing.
func TestCharge(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(100)}})
	a := open(t, m, "service:a")
	b, c := open(t, m, "client:b", a), open(t, m, "client:c")
	must(t, b.Charge(Memory, 70))
	must(t, b.Charge(Memory, 120))
	must(t, b.Charge(Descriptors, 3))
	wantUsed(t, Memory, map[user]int64{m.System(): 120, a: 120, b: 120})
	wantErr(t, c.ReserveMemory(1, MaxPriority), ErrLimit)
	must(t, c.ReserveMemory(0, MaxPriority))
	must(t, b.Charge(Memory, 99))
	must(t, c.ReserveMemory(1, MaxPriority))
	wantErr(t, c.ReserveMemory(1, MaxPriority), ErrLimit)
	wantErr(t, b.Charge(Memory, math.MaxInt64), ErrInvalid) // c has one
	wantErr(t, b.Charge(Memory, -1), ErrInvalid)
	for _, k := range []Kind{Inbound, TasksLow, Tasks, Kind(NumKinds)} {
		wantErr(t, b.Charge(k, 1), ErrInvalid)
	}
	wantUsed(t, Memory, map[user]int64{m.System(): 100, a: 99, b: 99, c: 1})
	wantErr(t, a.ReleaseMemory(1), ErrNotReserved)
	must(t, a.Close())
	wantErr(t, b.Charge(Memory, 100), ErrClosed)
	must(t, b.Charge(Memory, 9))
	wantUsed(t, Memory, map[user]int64{m.System(): 10, a: 9, b: 9})
	must(t, b.ReleaseMemory(4)) // it is the scope's own
	must(t, b.Close())
	wantErr(t, b.Charge(Memory, 0), ErrClosed)
	must(t, c.Charge(Memory, math.MaxInt64))
	wantUsed(t, Memory, map[user]int64{m.System(): math.MaxInt64, c: math.MaxInt64})
	wantErr(t, m.Transient().Charge(Memory, 1), ErrInvalid)
	wantUsed(t, Memory, map[user]int64{m.System(): math.MaxInt64, m.Transient(): 0})
	must(t, c.Close())
	wantEmpty(t, m)
}

// proves G5: a connection that is put below Transient again has its deadline still, and
// the clock is read under no lock.
func TestConnectionStaysInTransient(t *testing.T) {
	now := time.Unix(1000, 0)
	var m *Manager
	m, err := New(Options{Now: func() time.Time {
		if m != nil {
			m.List()
		}
		return now
	}})
	must(t, err)
	c, err := m.OpenConnection("connection:1", Outbound, now.Add(time.Second))
	must(t, err)
	a := open(t, m, "service:a")
	must(t, c.Move(m.Transient()))
	must(t, c.Move(m.Transient(), a))
	now = now.Add(time.Second)
	if list := m.Expired(); len(list) != 0 {
		t.Errorf("expired at the deadline: %v", list)
	}
	now = now.Add(1)
	if list := m.Expired(); len(list) != 1 || list[0] != c {
		t.Errorf("expired: %v", list)
	}
	wantErr(t, c.Move(a), ErrExpired)
	wantUsed(t, Connections, map[user]int64{m.System(): 1, m.Transient(): 1, a: 1})
	now = now.Add(-2) // a clock set back
	must(t, c.Move(a))
	now = now.Add(time.Hour)
	must(t, c.Move(m.System(), a)) // it has arrived
	if list := m.Expired(); len(list) != 0 {
		t.Errorf("expired: %v", list)
	}
	wantUsed(t, Connections, map[user]int64{m.System(): 1, m.Transient(): 0, a: 1})
	must(t, c.Close())
	wantEmpty(t, m)
}

// proves G6: a clock that is set back by hours makes nobody silent for hours.
func TestRefusalIsToldAfterClockIsSetBack(t *testing.T) {
	now, told := time.Unix(100_000, 0), 0
	m, err := New(Options{
		Now:     func() time.Time { return now },
		Refused: func(*LimitError, uint64) { told++ },
		Layers:  map[string]Layer{"file": {"service": {Memory: Block()}}},
	})
	must(t, err)
	refused := func() {
		t.Helper()
		wantErr(t, open(t, m, "service:a").ReserveMemory(1, MaxPriority), ErrLimit)
	}
	now = now.Add(5 * time.Hour)
	refused()
	now = now.Add(-3 * time.Hour)
	refused()
	refused()
	if told != 2 {
		t.Errorf("told %d times, want 2", told)
	}
	now = now.Add(10 * time.Second)
	refused()
	if told != 3 {
		t.Errorf("told %d times, want 3", told)
	}
}

// proves G1: what cannot be is refused when it is said, not when it is needed: shares
// that would be rounded, limits of no scope, an order of no layers.
func TestLimitBorders(t *testing.T) {
	for _, text := range []string{
		"0.0001%", "1.2345%", "101%", "-1%", "NaN%", "Inf%", "%", "-1", "9223372036854775808", "8388608TiB", "1.5GiB", "GiB", "Block", " 1", "",
	} {
		if l, err := ParseLimit(text); err == nil {
			t.Errorf("%q is read as %v", text, l)
		}
	}
	for text, n := range map[string]int64{
		"0": 0, "block": 0, "unlimited": math.MaxInt64, "9223372036854775807": math.MaxInt64, "8388607TiB": 8388607 << 40, "2KB": 2000, "1 MiB": 1 << 20,
		"0.001%": 92233720368547, "100%": math.MaxInt64 - 7, "0%": 0,
	} {
		l, err := ParseLimit(text)
		must(t, err)
		if got := l.on(Memory, Machine{Memory: math.MaxInt64 - 7}); got != n {
			t.Errorf("%q is %d, want %d", text, got, n)
		}
	}
	if Fixed(-1) != Fixed(0) {
		t.Error("a limit is less than nothing")
	}
	m, err := New(Options{Order: []string{}})
	must(t, err)
	must(t, m.Set("service", Limits{Memory: Fixed(3)}))
	wantErr(t, m.Set("", Limits{Memory: Fixed(3)}), ErrInvalid)
	wantErr(t, m.SetLayer("file", Layer{"": {Memory: Fixed(3)}}), ErrInvalid)
	wantErr(t, m.SetLayer("file", Layer{"service": {Kind(NumKinds): Fixed(3)}}), ErrInvalid)
	order := []string{"a", "b"}
	m, err = New(Options{Order: order})
	must(t, err)
	order[1] = "z"
	must(t, m.SetLayer("b", nil))
}

// Amounts: NumKinds at once, whatever they are, and no more.
func TestAmountsAtOnce(t *testing.T) {
	m := manager(t, nil)
	list := make([]Amount, NumKinds)
	for i := range list {
		list[i] = Amount{TasksLow, 1}
	}
	must(t, m.System().ReserveAll(0, list...))
	wantUsed(t, Tasks, map[user]int64{m.System(): int64(NumKinds)})
	wantErr(t, m.System().ReleaseAll(slices.Concat(list, list[:1])...), ErrInvalid)
	wantErr(t, m.System().ReserveAll(0, slices.Concat(list, list[:1])...), ErrInvalid)
	must(t, m.System().ReleaseAll(list...))
	must(t, m.System().ReserveAll(0))
	must(t, m.System().ReleaseAll())
	wantEmpty(t, m)
}

// proves G1: the machine's memory is the least that any control group above the process
// lets it have.
func TestMachine(t *testing.T) {
	root := t.TempDir()
	for dir, text := range map[string]string{"": "max\n", "a": "5000\n", "a/b": "9000\n", "a/b/c": "max\n"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
		must(t, os.WriteFile(filepath.Join(root, dir, "memory.max"), []byte(text), 0o600))
	}
	for self, want := range map[string]int64{
		"0::/a/b/c\n": 5000, "12:cpu:/a\n0::/a/b\n": 5000, "0::/\n": math.MaxInt64, "0::/a/none\n": 5000,
		"0::/../../..\n": math.MaxInt64, "1:memory:/a\n": math.MaxInt64, "": math.MaxInt64, "0::": math.MaxInt64,
	} {
		if got := groupMemory(root, self); got != want {
			t.Errorf("in %q: %d, want %d", self, got, want)
		}
	}
	if m := ThisMachine(); m.Memory < 1<<20 || m.Memory > 1<<60 || m.Descriptors < 3 {
		t.Errorf("this machine has %+v", m)
	}
}
