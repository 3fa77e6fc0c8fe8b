package sim

import (
	"cmp"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	shapeFlag  = flag.String("sim.shape", "", "workers,operations of each,cycles of a seed's run; by default 3,30,4")
	shrinkFlag = flag.Duration("sim.shrink", 0, "with -sim.seed: if it fails, how long to look for the smallest run that fails in the same way")
)

// shape is how large a seed's run is.
type shape struct{ workers, ops, cycles int }

var fullShape = shape{workers, opsPerTask, 4}

func (sh shape) String() string { return fmt.Sprintf("%d,%d,%d", sh.workers, sh.ops, sh.cycles) }

func (sh shape) size() int { return sh.workers * sh.ops * sh.cycles }

// cut bounds the boundary at which a cycle is cut off: about where the run ends.
func (sh shape) cut() int { return max(40, 1200*sh.ops/opsPerTask) }

func parseShape(s string) (shape, error) {
	if s == "" {
		return fullShape, nil
	}
	var n [3]int
	list := strings.Split(s, ",")
	for i := range n {
		v := 0
		if len(list) == len(n) {
			v, _ = strconv.Atoi(list[i]) // 0 is refused, too
		}
		if v < 1 {
			return shape{}, fmt.Errorf("shape %q: want three numbers, such as %v", s, fullShape)
		}
		n[i] = v
	}
	return shape{min(n[0], workers), n[1], n[2]}, nil
}

// replay is the command that runs a seed again.
func replay(test string, seed uint64, sh shape) string {
	c := fmt.Sprintf("go test ./test/sim -run '^%s$' -sim.seed=%d", test, seed)
	if sh != fullShape {
		c += " -sim.shape=" + sh.String()
	}
	if *driveFlag > 0 {
		c += fmt.Sprintf(" -sim.drives=%d", *driveFlag)
	}
	return c
}

var invariant = regexp.MustCompile(`\([SG][0-9]+\)`)

// likeness is what two failures of one cause have in common: the invariant that
// they name, or else how they begin.
func likeness(err error) string {
	if s := invariant.FindString(err.Error()); s != "" {
		return s
	}
	_, text, _ := strings.Cut(err.Error(), ": ")
	return text[:min(len(text), 20)]
}

// shrink looks for the smallest run that fails as a seed does, among that seed and
// those that follow it: fewer workers, fewer operations, fewer cycles, an earlier
// cut. It returns a sentence for the report.
func shrink(test string, f func(uint64, shape, func() bool) (int, error), seed uint64, from shape, failure error, within time.Duration) string {
	if within == 0 {
		return ""
	}
	var list []shape
	for _, w := range []int{1, 2, 3} {
		for _, ops := range []int{1, 2, 3, 5, 8, 12, 20, 30} {
			for _, c := range []int{1, 2, 4} {
				if sh := (shape{w, ops, c}); sh.size() < from.size() && w <= from.workers {
					list = append(list, sh)
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b shape) int { return cmp.Compare(a.size(), b.size()) })
	// Each shape gets a share of the time, so that the larger ones get theirs.
	end := time.Now().Add(within)
	for i, sh := range list {
		share := time.Now().Add(time.Until(end) / time.Duration(len(list)-i))
		over := func() bool { return time.Now().After(share) }
		for s := seed; s == seed || !over(); s++ {
			if _, err := f(s, sh, over); err != nil && likeness(err) == likeness(failure) {
				return fmt.Sprintf("\nthe smallest that fails so: %s\nseed %d: %v", replay(test, s, sh), s, err)
			}
		}
	}
	return "\nnone of the smaller runs that were tried fails so"
}

// A failure that needs two workers and five operations is shrunk to those, and
// another one is not taken for it.
func TestShrink(t *testing.T) {
	f := func(seed uint64, sh shape, _ func() bool) (int, error) {
		switch {
		case sh.workers >= 2 && sh.ops >= 5 && seed%3 == 0:
			return 0, fmt.Errorf("%v: it is gone (S12)", sh)
		case sh.ops >= 2:
			return 0, fmt.Errorf("%v: something else (S7)", sh)
		}
		return 0, nil
	}
	_, failure := f(3, fullShape, nil)
	got := shrink("TestX", f, 3, fullShape, failure, time.Second)
	if want := "-run '^TestX$' -sim.seed=3 -sim.shape=2,5,1\nseed 3: 2,5,1: it is gone (S12)"; !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, s := range []string{"1,2", "0,2,3", "a,b,c", "1,2,3,4"} {
		if sh, err := parseShape(s); err == nil {
			t.Errorf("%q is taken for %v", s, sh)
		}
	}
}
