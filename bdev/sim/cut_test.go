package sim

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/bdev"
)

// Of ten pending writes, all the outcomes that matter are drawn often, and rare
// ones too.
func TestInterestingCutsAreCommon(t *testing.T) {
	const writes, draws = 10, 20000
	d := NewDisk(writes*4096, DiskOptions{PhysicalSector: 4096})
	drive := mustOpen(t, nil, d, OpenOptions{})
	for i := range int64(writes) {
		if err := do(drive, writeOp(i*4096, letters(8, byte('A'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(42, 42))
	counts := map[string]int{}
	subsets := map[string]bool{}
	for range draws {
		n, cut := d.Survivor(rng, CutOptions{})
		counts["mode "+cut.Mode.String()]++
		if cut.Kept+cut.Torn+cut.Lost != writes || cut.Volatile != writes {
			t.Fatalf("%+v", cut)
		}
		if cut.Shuffled {
			counts["shuffled"]++
		}
		var kept strings.Builder
		torn, unreadable := 0, 0
		pages := strings.Split(picture(n), "|")
		for i, p := range pages {
			switch {
			case p == "????????":
				unreadable++
			case p == "........":
				continue
			case p != string(bytes.Repeat([]byte{byte('A' + i)}, 8)):
				torn++
			default:
				kept.WriteByte(byte('A' + i))
			}
		}
		if unreadable != cut.Unreadable {
			t.Fatalf("%d unreadable pages, %v", unreadable, cut)
		}
		all := "ABCDEFGHIJ"
		whole := torn == 0 && unreadable == 0
		k := kept.String()
		subsets[k] = true
		switch {
		case k == "" && whole:
			counts["none"]++
		case k == all:
			counts["all"]++
		case whole && len(k) == writes-1:
			counts["all but one"]++
		case whole && k == "J":
			counts["only the last"]++
		case whole && len(k) == 1:
			counts["only one"]++
		case torn == 1 && unreadable == 0 && k == all[:writes-1]:
			counts["only the last torn"]++
		case unreadable == 1 && torn == 0 && k == all[:writes-1]:
			counts["only the last unreadable"]++
		case whole && strings.HasPrefix(all, k):
			counts["prefix"]++
		case torn > 1:
			counts["several torn"]++
		case unreadable > 1:
			counts["several unreadable"]++
		}
	}
	for _, what := range []string{
		"none", "all", "all but one", "only the last", "only one", "only the last torn",
		"only the last unreadable", "prefix", "several torn", "several unreadable", "shuffled",
	} {
		if counts[what] < draws/200 {
			t.Errorf("%s: only %d of %d", what, counts[what], draws)
		}
	}
	for m := CutNone; m < CutChosen; m++ {
		if counts["mode "+m.String()] < draws/40 {
			t.Errorf("mode %v drawn only %d times of %d", m, counts["mode "+m.String()], draws)
		}
	}
	if len(subsets) < 700 { // of 1024
		t.Errorf("only %d subsets of ten writes", len(subsets))
	}
	t.Logf("%d subsets, %v", len(subsets), counts)
}

// Choose can walk all subsets exactly.
func TestChosenCuts(t *testing.T) {
	d := NewDisk(4096, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{})
	for i := range int64(3) {
		if err := do(drive, writeOp(i*512, letters(1, byte('A'+i)))); err != nil {
			t.Fatal(err)
		}
	}
	pending := d.Pending()
	if len(pending) != 3 || pending[1] != (Write{Offset: 512, Size: 512, Ended: true}) {
		t.Fatalf("%+v", pending)
	}
	var got []string
	for subset := range 8 {
		n, cut := d.Survivor(nil, CutOptions{Mode: CutChosen, Choose: func(i int, w Write) Fate {
			if w != pending[i] {
				t.Errorf("write %d is %+v", i, w)
			}
			if subset>>i&1 != 0 {
				return FateKeep
			}
			return FateLose
		}})
		if cut.Kept+cut.Lost != 3 {
			t.Errorf("%v", cut)
		}
		got = append(got, picture(n)[:3])
	}
	if want := "... A.. .B. AB. ..C A.C .BC ABC"; strings.Join(got, " ") != want {
		t.Fatalf("got %v, want %s", got, want)
	}
}

// Each sector of a torn write becomes what is said of it.
func TestTornAsTold(t *testing.T) {
	for _, physical := range []int{512, 4096} {
		d := NewDisk(8<<10, DiskOptions{PhysicalSector: physical})
		drive := mustOpen(t, nil, d, OpenOptions{})
		if err := do(drive, writeOp(0, letters(16, 'A')), &bdev.Op{Code: bdev.OpFlush}, writeOp(6*512, letters(4, 'B'))); err != nil {
			t.Fatal(err)
		}
		for i := range 81 {
			var want [4]Sector
			for k, n := 0, i; k < 4; k, n = k+1, n/3 {
				want[k] = Sector(n % 3)
			}
			picked := []byte("AAAAAAAA|AAAAAAAA")
			for k, s := range want {
				at := []int{6, 7, 9, 10}[k]
				if s == SectorNew {
					picked[at] = 'B'
				}
			}
			for k, s := range want {
				if s == SectorBad && physical == 4096 {
					copy(picked[k/2*9:], "????????")
				}
			}
			n, cut := d.Survivor(nil, CutOptions{
				Mode: CutChosen, Choose: func(int, Write) Fate { return FateTear },
				Torn: func(w, sector int) Sector {
					if w != 0 {
						t.Errorf("write %d", w)
					}
					return want[sector]
				},
			})
			if got := picture(n); got != string(picked) || cut.Torn != 1 || cut.Unreadable != strings.Count(got, "????????") {
				t.Fatalf("%v, sectors of %d: %s, want %s; %v", want, physical, got, picked, cut)
			}
		}
	}
}

func TestCutOptionsNarrow(t *testing.T) {
	d := NewDisk(8<<10, DiskOptions{PhysicalSector: 4096})
	drive := mustOpen(t, nil, d, OpenOptions{})
	if err := do(drive, writeOp(0, letters(4, 'A')), writeOp(512, letters(4, 'B'))); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n, cut := d.Survivor(rng, CutOptions{NoUnreadable: true, InOrder: true})
		if cut.Unreadable != 0 || cut.Shuffled || strings.Contains(picture(n), "?") {
			t.Fatalf("%v: %s", cut, picture(n))
		}
		if n, _ := d.Survivor(rng, CutOptions{Mode: CutAll, InOrder: true}); picture(n)[:6] != "ABBBB." {
			t.Fatal(picture(n))
		}
	}
}

// Disks that share memory change each other in no way, also when they are used
// by several goroutines at once.
func TestSurvivorsAreIndependent(t *testing.T) {
	d := NewDisk(1<<20, DiskOptions{})
	drive := mustOpen(t, nil, d, OpenOptions{})
	for i := range int64(100) {
		if err := do(drive, writeOp(i*3*512, letters(5, 'A'))); err != nil {
			t.Fatal(err)
		}
	}
	before := picture(d)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(g, 1))
			for i := range 30 {
				n, _ := d.Survivor(rng, CutOptions{Mode: CutAll, InOrder: true})
				c := d.Clone()
				c.Kill(rng)
				x, err := Open(nil, n, OpenOptions{Seed: g})
				if err != nil {
					t.Error(err)
					return
				}
				letter := byte('B' + g)
				if err := do(x, writeOp(int64(i)*4096, letters(9, letter)), &bdev.Op{Code: bdev.OpFlush}); err != nil {
					t.Error(err)
				}
				c.FlipBit(int64(i)*512, 1)
				if got := picture(n); strings.Count(got, string(letter)) != 9 || strings.Contains(got, "#") {
					t.Error(got)
				}
				if got := picture(c); strings.Count(got, "#") != 1 || strings.Contains(got, string(letter)) {
					t.Error(got)
				}
			}
		})
	}
	wg.Wait()
	if picture(d) != before {
		t.Fatal("a survivor changed its origin")
	}
	if len(d.Pending()) != 100 {
		t.Fatal("a survivor changed what is pending")
	}
}
