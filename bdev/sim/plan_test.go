package sim

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mpool-go/mpool/bdev"
)

func TestDrawnPlansVary(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	kinds := map[string]int{}
	for range 4000 {
		plan := DrawFaults(rng, PlanOptions{Faults: 2, Size: 1 << 20, Lies: true})
		if len(plan) != 2 {
			t.Fatal(plan)
		}
		for _, f := range plan {
			kinds[fmt.Sprintf("%v %v %v", f.Code, f.Err, f.Effect)]++
			switch {
			case f.Count == 1:
				kinds["once"]++
			case f.Count > 1:
				kinds["a few times"]++
			case f.Probability > 0:
				kinds["now and then"]++
			default:
				kinds["from then on"]++
			}
			if f.To != 0 {
				kinds["range"]++
			}
			if f.Skip >= 50 || f.Code == bdev.OpFlush && f.To != 0 || f.From < 0 || f.To < f.From || f.Shift%pageSize != 0 {
				t.Fatalf("%+v", f)
			}
		}
	}
	if len(kinds) != 16 {
		t.Errorf("%d kinds: %v", len(kinds), kinds)
	}
	for what, n := range kinds {
		if n < 300 {
			t.Errorf("%s drawn only %d times", what, n)
		}
	}
	if plan := DrawFaults(rng, PlanOptions{}); len(plan) != 1 || plan[0].To != 0 || plan[0].Effect != EffectNone {
		t.Errorf("%+v", plan)
	}
}
