package rot

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
)

var (
	flips  = flag.Int("rot.flips", 260, "how many flips are tried")
	lies   = flag.Int("rot.lies", 15, "how many lost, misdirected and flipped writes are tried")
	drives = flag.Int("rot.drives", 0, "of how many drives the pools are, 1 or 2; 0: of one and of two")
	seed   = flag.Uint64("rot.seed", 0, "seed of places and kinds; 0: from the clock")
)

var le = binary.LittleEndian

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	goleak.VerifyTestMain(m)
}

// images makes pools that were closed, and ones whose process died.
func images(ctx context.Context, t *testing.T) []*image {
	t.Helper()
	var list []*image
	for _, k := range []kind{oneDrive, withStaging, twoDrives} {
		if *drives == 1 && k != oneDrive || *drives == 2 && k == oneDrive {
			continue
		}
		start, err := blank(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		for _, unclean := range []bool{false, true} {
			im := scenario(ctx, k, start.Clone(), unclean)
			if im.trouble != nil {
				t.Fatal(im.trouble)
			}
			if v, err := im.judge(ctx, im.disks.Clone()); v != whole || err != nil {
				t.Fatalf("the pool of %s that nobody changed is %v: %v", k, v, err)
			}
			list = append(list, im)
		}
	}
	return list
}

// counts counts what came of changes, by the class of what was changed.
type counts struct {
	mu sync.Mutex
	// +checklocks:mu
	n map[string]map[verdict]int
}

func (c *counts) add(what string, v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]map[verdict]int)
	}
	if c.n[what] == nil {
		c.n[what] = make(map[verdict]int)
	}
	c.n[what][v]++
}

func (c *counts) log(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(c.n)) {
		n := c.n[what]
		t.Logf("%-32s %7d without effect %7d detected %7d the exception", what, n[whole], n[detected], n[lastGroup])
	}
}

// parallel calls f with 0 to n-1 from two goroutines until one has failed.
func parallel(t *testing.T, n int, f func(i uint64) error) {
	t.Helper()
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !t.Failed() {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				if err := f(i); err != nil {
					t.Errorf("case %d of seed %d: %v", i, *seed, err)
				}
			}
		})
	}
	wg.Wait()
}

// A flipped bit, or several in a page, anywhere on a drive: corrected, detected,
// of no account, or the stated exception, by what it hits; never wrong bytes and
// never a silent loss. A superblock copy is mended by the activation.
//
// proves S2 S14 S22 S23 S40 S43
func TestFlips(t *testing.T) {
	ctx := context.Background()
	list := images(ctx, t)
	where, kinds := make([]spots, len(list)), make([][]spot, len(list))
	for i, im := range list {
		var err error
		if where[i], err = classify(ctx, im.disks); err != nil {
			t.Fatal(err)
		}
		for c := range must { // order does not matter
			for n := range im.disks {
				at := spot{n, c}
				switch {
				case len(where[i][at]) > 0:
					kinds[i] = append(kinds[i], at)
				case n == 0 && im.kind != twoDrives, n == 1 && im.kind == withStaging && c != metaSlot && c != metaPage:
					t.Errorf("%s: no page is %v", im.kind, at)
				}
			}
		}
		slices.SortFunc(kinds[i], func(a, b spot) int { return strings.Compare(a.String(), b.String()) })
	}
	var n counts
	parallel(t, *flips, func(i uint64) error {
		rng := rand.New(rand.NewPCG(*seed, i))
		pool := i % uint64(len(list))
		im := list[pool]
		what := kinds[pool][rng.IntN(len(kinds[pool]))]
		pages := where[pool][what]
		at := pages[rng.IntN(len(pages))]
		d := im.disks.Clone()
		bits := 1
		if rng.IntN(4) == 0 {
			bits = 1 + rng.IntN(100)
		}
		flipped := make(map[int]bool) // none twice
		for range bits {
			bit := rng.IntN(8 * pageBytes)
			if !flipped[bit] {
				d[what.drive].FlipBit(at+int64(bit/8), uint(bit%8))
			}
			flipped[bit] = true
		}
		v, err := im.flipped(ctx, d, what.class)
		n.add(what.String(), v)
		if err != nil {
			return fmt.Errorf("%d bits of a %v at %d (%s, unclean stop: %v): %w", bits, what, at, im.kind, im.unclean, err)
		}
		return nil
	})
	n.log(t)
}

// flipped judges drives of which one page was changed.
func (im *image) flipped(ctx context.Context, d sim.Rack, what class) (verdict, error) {
	before, err := offline(ctx, d)
	if err != nil {
		return 0, err
	}
	v, err := im.judge(ctx, d)
	if err != nil {
		return v, err
	}
	switch may := must[what]; {
	case v == whole && !may.whole:
		return v, wrongf("nobody noticed")
	case v == detected && !may.detected, v == lastGroup && !may.detected:
		return v, wrongf("it is %v", v)
	case v == lastGroup && !im.unclean:
		return v, wrongf("something is gone without a word after a clean stop")
	case v == detected && before.OK:
		return v, wrongf("the offline checker had found nothing")
	case v == whole && !may.detected:
		after, err := offline(ctx, d)
		if err != nil {
			return v, err
		}
		if !after.OK {
			return v, wrongf("afterwards the checker finds %v", after.Problems)
		}
	}
	return v, nil
}

// A write that the drive acknowledges and never does, does elsewhere, or does
// with a bit flipped: at each write of a scenario. What is read afterwards is
// right, or ECORRUPT; after a clean stop nothing is gone without a word.
//
// proves S14 S22 S23 S40
func TestLies(t *testing.T) {
	ctx := context.Background()
	type world struct {
		kind   kind
		disk   int
		start  sim.Rack
		writes uint64
	}
	var worlds []world
	for _, w := range []world{{kind: oneDrive}, {kind: withStaging, disk: 1}, {kind: twoDrives, disk: 1}} {
		if *drives == 1 && w.kind != oneDrive || *drives == 2 && w.kind == oneDrive {
			continue
		}
		var err error
		if w.start, err = blank(ctx, w.kind); err != nil {
			t.Fatal(err)
		}
		counted := w.start.Clone()
		counted[w.disk].Inject(sim.Fault{Code: bdev.OpWrite}) // harms none of them
		w.writes = scenario(ctx, w.kind, counted, false).hits
		t.Logf("%s: %d writes", w.kind, w.writes)
		worlds = append(worlds, w)
	}
	var n counts
	parallel(t, *lies, func(i uint64) error {
		rng := rand.New(rand.NewPCG(*seed, i))
		w := &worlds[rng.IntN(len(worlds))]
		f := sim.Fault{Code: bdev.OpWrite, Count: 1, Skip: rng.Uint64N(w.writes)}
		switch rng.IntN(3) { // most of what is between are small commits
		case 0:
			f.Skip %= 80
		case 1:
			f.Skip = w.writes - 1 - f.Skip%min(150, w.writes)
		}
		what := []string{"lost write", "misdirected", "flipped write"}[i%3]
		if w.disk > 0 {
			what = "second drive's " + what
		}
		switch i % 3 {
		case 0:
			f.Effect = sim.EffectLost
		case 1:
			f.Effect, f.Shift = sim.EffectMisdirect, pageBytes*(1+rng.Int64N(diskBytes/pageBytes-1))
			if rng.IntN(2) == 0 {
				f.Shift = pageBytes * (rng.Int64N(64) - 32) // onto its neighbours
			}
		case 2:
			f.Effect = sim.EffectFlip
		}
		d := w.start.Clone()
		d[w.disk].Inject(f)
		im := scenario(ctx, w.kind, d, rng.IntN(2) == 0)
		v, err := im.judge(ctx, im.disks)
		if err == nil && v == lastGroup && !im.unclean && im.trouble == nil {
			err = wrongf("something is gone without a word after a clean stop")
		}
		if im.hits == 0 {
			what += ", not reached"
		}
		n.add(what, v)
		if err != nil {
			return fmt.Errorf("%s %d, shift %d (%s, unclean stop: %v; at work: %w): %w", what, f.Skip, f.Shift, w.kind, im.unclean, im.trouble, err)
		}
		return nil
	})
	n.log(t)
}
