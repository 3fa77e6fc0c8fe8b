package layout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// block is a committed object of one block.
func block(i uint64) Object {
	return Object{
		ID: NewObjectID(KindMblock, i+1), Birth: BirthStamp(2*i + 1),
		Extent:  Extent{Drive: uint16(i % 4), Start: i * 16, Blocks: 16},
		Written: 4096, Capacity: 4096, Owner: uint32(i % 100), Tag: i * 0x9e3779b97f4a7c15,
		Created: 1_790_000_000_000 + i, Sums: []uint32{uint32(i)},
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// insertAll inserts objects one by one and returns the slowest insert.
func insertAll(tab *Table, n uint64) (slowest time.Duration) {
	sums := []uint32{0}
	for i := range n {
		o := block(i)
		sums[0] = uint32(i)
		o.Sums = sums
		start := time.Now()
		tab.Insert(o)
		slowest = max(slowest, time.Since(start))
	}
	return slowest
}

// growth returns what the rehash of a part takes, the most that an insert waits
// for: the median of some, because the slowest insert seen also has what else
// the machine does.
func growth(tab *Table) time.Duration {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	took := make([]time.Duration, 101)
	for i := range took {
		p := &tab.parts[i]
		start := time.Now()
		tab.growLocked(p, len(p.words)*5/4)
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// BenchmarkTableMemory inserts 10 M objects one by one and prints what they
// hold and what the growth cost.
func BenchmarkTableMemory(b *testing.B) {
	const n = 10_000_000
	for range b.N {
		before := heapInUse()
		start := time.Now()
		tab := NewTable(nil)
		slowest := insertAll(tab, n)
		took := time.Since(start)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		dirty := int64(m.HeapAlloc) - before
		live := heapInUse() - before
		gc := time.Duration(math.MaxInt64)
		for range 5 {
			start = time.Now()
			runtime.GC()
			gc = min(gc, time.Since(start))
		}
		own, sums := tab.Bytes()
		grow := growth(tab)
		b.ReportMetric(float64(live)/n, "live-B/object")
		b.ReportMetric(float64(dirty)/n, "heap-B/object")
		b.ReportMetric(float64(own+sums)/n, "own-B/object")
		b.ReportMetric(float64(took.Nanoseconds())/n, "ns/insert")
		b.ReportMetric(float64(slowest.Microseconds()), "slowest-insert-µs")
		b.ReportMetric(float64(grow.Microseconds()), "part-growth-µs")
		b.ReportMetric(float64(gc.Microseconds()), "gc-µs")
		b.ReportMetric(0, "ns/op")
		runtime.KeepAlive(tab)
	}
}

// BenchmarkTableGrowth finds the worst bytes an object between 5 M and 10 M,
// live and with what a lazy collector leaves.
func BenchmarkTableGrowth(b *testing.B) {
	for range b.N {
		defer debug.SetGCPercent(debug.SetGCPercent(100))
		before := heapInUse()
		tab := NewTable(nil)
		var worstOwn, worstHeap float64
		var m runtime.MemStats
		for i := range uint64(10_000_000) {
			tab.Insert(block(i))
			if i > 5_000_000 && i%50_000 == 0 {
				own, _ := tab.Bytes()
				runtime.ReadMemStats(&m)
				worstOwn = max(worstOwn, float64(own)/float64(i))
				worstHeap = max(worstHeap, float64(int64(m.HeapAlloc)-before)/float64(i))
			}
		}
		b.ReportMetric(worstOwn, "worst-own-B/object")
		b.ReportMetric(worstHeap, "worst-heap-B/object")
		b.ReportMetric(0, "ns/op")
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []uint64{1_000_000, 10_000_000} {
		tab := NewTable(nil)
		tab.Reserve(int(n))
		batch := make([]Object, 200)
		start := time.Now()
		for i := range n {
			batch[i%200] = block(i)
			if i%200 == 199 {
				tab.UpsertAll(batch)
			}
		}
		insert := time.Since(start)
		rng := rand.New(rand.NewPCG(1, n))
		name := fmt.Sprintf("%dM", n/1_000_000)
		b.Run("lookup/"+name, func(b *testing.B) {
			b.ReportAllocs()
			var sum uint64
			for b.Loop() {
				o, _ := tab.Lookup(NewObjectID(KindMblock, rng.Uint64N(n)+1))
				sum += uint64(o.Sums[0])
			}
			b.ReportMetric(float64(insert.Nanoseconds())/float64(n), "ns/UpsertAll")
		})
		b.Run("miss/"+name, func(b *testing.B) {
			for b.Loop() {
				tab.Lookup(NewObjectID(KindMlog, rng.Uint64N(n)+1))
			}
		})
		b.Run("delete-insert/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o, ok := tab.Delete(NewObjectID(KindMblock, rng.Uint64N(n)+1))
				if !ok {
					b.Fatal("not there")
				}
				tab.Insert(o)
			}
		})
	}
}
