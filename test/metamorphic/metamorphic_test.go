package metamorphic

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/test/daemon"
)

var (
	runFor = flag.Duration("metamorphic.for", 0, "how long lists are done; 0: one list, with some of the configurations")
	length = flag.Int("metamorphic.ops", 150, "operations of a list")
	seed   = flag.Uint64("metamorphic.seed", 0, "seed of the first list; 0: from the clock")
	shrink = flag.Duration("metamorphic.shrink", 30*time.Second, "how long a list that makes a difference is shortened")
)

var mpoold string // the daemon's binary, built by TestMain

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(daemon.Main(m, false, &mpoold))
}

// differs returns the place of the first result that differs, before anything is full,
// or -1.
func differs(a, b []string) int {
	for i := range max(len(a), len(b)) {
		if i < len(a) && isFull(a[i]) || i < len(b) && isFull(b[i]) {
			return -1
		}
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// untilFull is a list's beginning, before anything is full.
func untilFull(list []string) []string {
	if i := slices.IndexFunc(list, isFull); i >= 0 {
		return list[:i]
	}
	return list
}

func isFull(result string) bool { return strings.Contains(result, full) }

// shortened leaves out of a list what is not needed for it to be bad.
func shortened(list []op, patience time.Duration, bad func([]op) bool) []op {
	end := time.Now().Add(patience)
	for piece := (len(list) + 1) / 2; piece > 0; piece /= 2 {
		for at := 0; at < len(list) && time.Now().Before(end); {
			less := slices.Delete(slices.Clone(list), at, min(at+piece, len(list)))
			if bad(less) {
				list = less
				continue
			}
			at += piece
		}
	}
	return list
}

// compare fails the test if a list gives something else with a configuration. It returns
// how many results were compared.
func compare(t *testing.T, s uint64, list []op, c *config, want []string) int {
	t.Helper()
	got := c.run(t, list)
	if t.Failed() {
		return 0
	}
	at := differs(want, got)
	if at < 0 {
		return min(len(untilFull(want)), len(untilFull(got)))
	}
	base := &configs()[0]
	short := shortened(list[:min(at+1, len(list))], *shrink, func(l []op) bool {
		return differs(base.run(t, l), c.run(t, l)) >= 0
	})
	var b strings.Builder
	for _, o := range short {
		fmt.Fprintf(&b, "\n\t%v,", o)
	}
	what := "at the end"
	if at < len(list) {
		what = list[at].String()
	}
	t.Errorf("operation %d of seed %d, %s, gives\n%s\nwith %q and\n%s\nwith %q; so do, or others, of%s",
		at, s, what, result(want, at), base.name, result(got, at), c.name, b.String())
	return at
}

// result is what an operation gave.
func result(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "nothing"
}

// What a program sees does not depend on engines, sizes of zones and sectors, numbers
// of drives, the way to the pool, credits or verified reads.
func TestMetamorphic(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./test/metamorphic -run TestMetamorphic -metamorphic.seed=%d -metamorphic.for=%v -metamorphic.ops=%d", s, s, *runFor, *length)
	all := configs()
	began := time.Now()
	lists, runs, results := 0, 0, 0
	for ; lists == 0 || time.Since(began) < *runFor; lists++ {
		list := draw(s+uint64(lists), *length)
		want := all[0].run(t, list)
		others := all[1:]
		if *runFor == 0 {
			others = others[:4]
		}
		for i := range others {
			results += compare(t, s+uint64(lists), list, &others[i], want)
			runs++
		}
		if t.Failed() {
			return
		}
	}
	if results == 0 {
		t.Error("nothing was compared")
	}
	t.Logf("%d lists of %d operations, compared %d times, %d results", lists, *length, runs, results)
}

// A difference is found, and its list is shortened to what makes it: here that a root is
// lost when the pool is activated again, and nothing else changes it.
func TestPlanted(t *testing.T) {
	list := []op{{do: "set roots", off: 1, n: 1}} // of no object yet
	for i, o := range draw(5, 12) {
		list = append(list, o)
		switch i {
		case 3:
			list = append(list, op{"put mblock", 0, 5000, 1})
		case 5:
			list = append(list, op{"set roots", 1, 1, 1})
		case 9:
			list = append(list, op{do: "reopen"}, op{do: "roots"})
		}
	}
	base := &configs()[0]
	spoiled := func(list []op, results []string) []string {
		again := false
		for i, o := range list {
			again = again || o.do == "reopen"
			if again && o.do == "roots" && strings.Contains(results[i], "root1=") {
				results[i] = "ok"
			}
		}
		return results
	}
	bad := func(l []op) bool {
		want := base.run(t, l)
		return differs(want, spoiled(l, slices.Clone(want))) >= 0
	}
	if !bad(list) {
		t.Fatal("a planted difference is not found")
	}
	short := shortened(list, time.Minute, bad)
	var did []string
	for _, o := range short {
		did = append(did, o.do)
	}
	if got := strings.Join(did, ", "); got != "put mblock, set roots, reopen, roots" {
		t.Errorf("shortened to %s", got)
	}
}
