package scope

import (
	"fmt"
	"testing"
)

// four returns the last of four scopes, one below the other.
func four(tb testing.TB, client int) *Scope {
	m := manager(tb, Layer{
		"system": {Memory: Fixed(1 << 40)}, "service": {Memory: Fixed(1 << 40)},
		"client": {Memory: Fixed(1 << 40)}, "connection": {Memory: Fixed(1 << 40)},
	})
	c := open(tb, m, fmt.Sprint("client:", client), open(tb, m, "service:a"))
	return open(tb, m, fmt.Sprint("connection:", client), c)
}

// proves G9: nothing is allocated, nor by spans that begin where others have ended.
func TestReserveAllocatesNothing(t *testing.T) {
	s := four(t, 0)
	if n := testing.AllocsPerRun(1000, func() {
		if s.ReserveMemory(4096, MaxPriority) != nil || s.ReleaseMemory(4096) != nil || s.Reserve(Inbound, 1) != nil || s.Release(Inbound, 1) != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		n, err := s.BeginSpan()
		if err != nil || n.ReserveMemory(4096, MaxPriority) != nil || n.Done() != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations of a span", n)
	}
}

func BenchmarkReserve(b *testing.B) {
	s := four(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		if s.ReserveMemory(4096, MaxPriority) != nil || s.ReleaseMemory(4096) != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkReserveParallel(b *testing.B) {
	m := manager(b, Layer{"system": {Memory: Fixed(1 << 40)}})
	service := open(b, m, "service:a")
	b.RunParallel(func(pb *testing.PB) {
		s := span(b, open(b, m, fmt.Sprintf("client:%p", pb), service))
		for pb.Next() {
			if s.ReserveMemory(4096, MaxPriority) != nil || s.ReleaseMemory(4096) != nil {
				b.Error("refused")
			}
		}
	})
}

func BenchmarkSpan(b *testing.B) {
	s := four(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		n, err := s.BeginSpan()
		if err != nil || n.ReserveMemory(4096, MaxPriority) != nil || n.Done() != nil {
			b.Fatal("refused")
		}
	}
}
