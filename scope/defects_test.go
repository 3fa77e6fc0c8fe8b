package scope

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

// The defects of managers before this one, a test each.

// A refused reservation of a child lowered the parent: 1300 was held under a limit of
// 1000.
func TestDefectRefusedChildLowersParent(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(1000)}})
	a, b := open(t, m, "service:a"), open(t, m, "service:b")
	must(t, a.ReserveMemory(900, MaxPriority))
	wantErr(t, b.ReserveMemory(300, MaxPriority), ErrLimit)
	wantUsed(t, Memory, map[user]int64{m.System(): 900, a: 900, b: 0})
	wantErr(t, b.ReserveMemory(400, MaxPriority), ErrLimit)
	must(t, b.ReserveMemory(100, MaxPriority))
}

// The same by way of a span, which lowered two.
func TestDefectRefusedSpanLowersAll(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(1000)}})
	a := open(t, m, "service:a")
	must(t, a.ReserveMemory(900, MaxPriority))
	s := span(t, a)
	wantErr(t, s.ReserveMemory(300, MaxPriority), ErrLimit)
	wantUsed(t, Memory, map[user]int64{m.System(): 900, a: 900, s: 0})
}

// One inbound connection removed took an outbound one and two descriptors with it.
func TestDefectInboundTakesOutbound(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	must(t, a.ReserveAll(0, Amount{Inbound, 2}, Amount{Outbound, 1}, Amount{Descriptors, 3}))
	must(t, a.ReleaseAll(Amount{Inbound, 1}, Amount{Descriptors, 1}))
	for k, n := range map[Kind]int64{Inbound: 1, Outbound: 1, Connections: 2, Descriptors: 2} {
		wantUsed(t, k, map[user]int64{m.System(): n, a: n})
	}
}

// A service that was opened again had forgotten its use.
func TestDefectReopenedServiceForgets(t *testing.T) {
	m := manager(t, Layer{"service": {Memory: Fixed(1000)}})
	must(t, open(t, m, "service:a").ReserveMemory(800, MaxPriority))
	again, err := m.Service("a")
	must(t, err)
	wantUsed(t, Memory, map[user]int64{again: 800})
	wantErr(t, again.ReserveMemory(300, MaxPriority), ErrLimit)
}

// To look at a service that there is not was no error; to look while another opened one
// was a data race.
func TestDefectViewRacesOpen(t *testing.T) {
	m := manager(t, nil)
	if _, err := m.Show("service:nobody"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				s, err := m.Service(fmt.Sprint((i + j) % 3))
				if err != nil {
					t.Error(err)
					return
				}
				m.List()
				_, _ = m.Show("service:1") // it may be gone
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A task of unknown priority was added and never removed; a negative number of tasks
// was added.
func TestDefectUnknownPriorityLeaks(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	for _, k := range []Kind{Tasks, Connections, Kind(NumKinds), 200} {
		wantErr(t, a.Reserve(k, 3), ErrInvalid)
		wantErr(t, a.Release(k, 3), ErrInvalid)
		if _, err := a.BeginTask(t.Context(), k); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	for k := range Kind(NumKinds) {
		wantErr(t, a.Reserve(k, -5), ErrInvalid)
		wantErr(t, a.Release(k, -5), ErrInvalid)
		wantErr(t, a.ReserveAll(0, Amount{k, -5}), ErrInvalid)
	}
	wantErr(t, a.ReserveMemory(-5, 0), ErrInvalid)
	wantEmpty(t, m)
}

// A service without a limit of its own was a span without a reference: done twice, the
// system's count of references was less than nothing.
func TestDefectDoneTwiceDropsReference(t *testing.T) {
	m := manager(t, nil)
	a := open(t, m, "service:a")
	must(t, a.Close())
	wantErr(t, a.Close(), ErrClosed)
	b := open(t, m, "service:b")
	s := span(t, b)
	must(t, s.Done())
	wantErr(t, s.Done(), ErrClosed)
	must(t, b.ReserveMemory(1, 0))
	if _, err := m.Show("service:b"); err != nil {
		t.Error("it is gone, and was closed by nobody")
	}
}

// Of several edges up only the first was charged.
func TestDefectOnlyFirstEdgeCharged(t *testing.T) {
	m := manager(t, Layer{"service:b": {Memory: Fixed(10)}})
	a, b := open(t, m, "service:a"), open(t, m, "service:b")
	c := open(t, m, "client:1", a, b)
	must(t, c.ReserveAll(0, Amount{Memory, 0}, Amount{TasksLow, 1}))
	must(t, c.ReserveMemory(10, MaxPriority))
	wantUsed(t, Memory, map[user]int64{m.System(): 10, a: 10, b: 10, c: 10})
	wantErr(t, c.ReserveMemory(1, MaxPriority), ErrLimit)
	wantUsed(t, Memory, map[user]int64{m.System(): 10, a: 10, b: 10, c: 10})
	must(t, c.Close())
	wantEmpty(t, m) // tasks too
}

// Six scopes with shared and separate ancestors: each counts once.
func TestDiamond(t *testing.T) {
	m := manager(t, Layer{"system": {Memory: Fixed(100)}})
	s2, s3 := open(t, m, "s:2"), open(t, m, "s:3")
	s4, s5 := open(t, m, "s:4", s2, s3, m.System()), open(t, m, "s:5", s2, m.System())
	s6 := open(t, m, "s:6", s3)
	must(t, s4.ReserveMemory(10, MaxPriority))
	must(t, s5.ReserveMemory(20, MaxPriority))
	must(t, s6.ReserveMemory(40, MaxPriority))
	want := map[user]int64{m.System(): 70, s2: 30, s3: 50, s4: 10, s5: 20, s6: 40}
	wantUsed(t, Memory, want)
	wantErr(t, s4.ReserveMemory(31, MaxPriority), ErrLimit) // System's
	wantUsed(t, Memory, want)
	must(t, s4.Move(s6))
	wantUsed(t, Memory, map[user]int64{m.System(): 70, s2: 20, s3: 50, s4: 10, s5: 20, s6: 50})
	must(t, s4.ReleaseMemory(10))
	wantUsed(t, Memory, map[user]int64{m.System(): 60, s2: 20, s3: 40, s4: 0, s5: 20, s6: 40})
}
