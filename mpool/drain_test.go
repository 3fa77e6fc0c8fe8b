package mpool

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/space"
)

// proves S7, S8: what is discarded and released is what was freed, no zone more
// or less, in as few runs as there can be.
func TestMergedRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.SliceOfNDistinct(rapid.Uint32Range(0, 99), 1, 60, rapid.ID[uint32]).Draw(t, "zones")
		freed := make(map[uint32]bool)
		var runs []space.Run
		for _, z := range zones {
			freed[z] = true
			runs = append(runs, space.Run{Start: z, Count: 1})
		}
		got := make(map[uint32]bool)
		for _, r := range merged(runs) {
			if got[r.Start-1] || r.Count == 0 {
				t.Fatalf("run %v touches the one before it", r)
			}
			for z := r.Start; z < r.Start+r.Count; z++ {
				if got[z] {
					t.Fatalf("zone %d is there twice", z)
				}
				got[z] = true
			}
		}
		if d := cmp.Diff(freed, got); d != "" {
			t.Fatal(d)
		}
	})
}
