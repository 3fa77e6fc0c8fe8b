package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/bdev"
)

func TestRackLosesPowerTogether(t *testing.T) {
	r := Rack{NewDisk(8<<10, DiskOptions{Name: "/sim/a"}), NewDisk(8<<10, DiskOptions{Name: "/sim/b"})}
	if got := r.Paths(); !slices.Equal(got, []string{"/sim/a", "/sim/b"}) {
		t.Fatal(got)
	}
	ctx := context.Background()
	cutter := &Cutter{}
	open := r.Opener(nil, OpenOptions{OnIO: cutter.OnIO})
	if _, err := open(ctx, "/sim/c", false); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	for i, path := range r.Paths() {
		drive, err := open(ctx, path, i == 1)
		if err != nil {
			t.Fatal(err)
		}
		if drive.Path() != path || drive.Geometry().ReadOnly != (i == 1) {
			t.Fatalf("%+v", drive.Geometry())
		}
		if err := do(drive, writeOp(0, letters(1, 'A'))); (i == 1) != errors.Is(err, syscall.EROFS) {
			t.Fatal(err)
		}
	}
	if cutter.Seen() != 2 {
		t.Fatalf("%d boundaries over both disks", cutter.Seen())
	}
	rng := rand.New(rand.NewPCG(1, 1))
	clone := r.Clone()
	clone.Kill(rng)
	after, cuts := r.Survivor(rng, CutOptions{Mode: CutAll})
	if len(cuts) != 2 || cuts[0].Kept != 1 || cuts[1].Volatile != 0 || picture(after[0])[:2] != "A." {
		t.Fatal(cuts)
	}
	if _, err := open(ctx, "/sim/a", false); !errors.Is(err, bdev.ErrBusy) {
		t.Fatal(err)
	}
	r.PowerCut(rng, CutOptions{Mode: CutNone})
	if _, err := open(ctx, "/sim/a", false); err != nil {
		t.Fatal(err)
	}
	if picture(r[0])[:2] != ".." || picture(clone[0])[:2] != "A." {
		t.Fatal(picture(r[0]), picture(clone[0]))
	}
}
