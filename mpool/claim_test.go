package mpool

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/space"
)

// Zones that are taken in any order come out as the longest runs, in order, and
// none is taken twice.
//
// proves S7
func TestClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := uint32(rapid.SampledFrom([]int{1, 64, 65, 1000, claimChunk, 3*claimChunk + 7}).Draw(t, "zones"))
		c := newClaims(zones)
		taken := make([]bool, zones)
		for range rapid.IntRange(0, 60).Draw(t, "runs") {
			start := rapid.Uint32Range(0, zones-1).Draw(t, "start")
			r := space.Run{Start: start, Count: rapid.Uint32Range(1, min(zones-start, 300)).Draw(t, "count")}
			first := r.Start
			for first < r.Start+r.Count && !taken[first] {
				first++
			}
			zone, ok := c.take(r)
			if ok != (first == r.Start+r.Count) || !ok && zone != first {
				t.Fatalf("%v: zone %d, %v; zone %d was taken", r, zone, ok, first)
			}
			if !ok {
				return // the pool is not activated
			}
			for z := r.Start; z < r.Start+r.Count; z++ {
				taken[z] = true
			}
		}
		next := uint32(0)
		err := c.runs(func(r space.Run) error {
			for ; next < r.Start; next++ {
				if taken[next] {
					t.Fatalf("zone %d is missing", next)
				}
			}
			for ; next < r.Start+r.Count; next++ {
				if !taken[next] {
					t.Fatalf("zone %d was not taken", next)
				}
			}
			if next < zones && taken[next] {
				t.Fatalf("%v could be longer", r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for ; next < zones; next++ {
			if taken[next] {
				t.Fatalf("zone %d is missing", next)
			}
		}
	})
}
