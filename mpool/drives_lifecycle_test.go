package mpool

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/sched"
)

// proves S5: over three drives, create, activate, rename and destroy have
// happened or not, whatever write a crash cuts off.
func TestLifecycleOverDrivesIsAtomic(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race, and it takes minutes")
	}
	steps := []struct {
		name  string
		do    func(r *rackRig)
		found string // the pools that may be found
	}{
		{"create", func(r *rackRig) { r.create(api.CreateOptions{}) }, "- half p"},
		{"activate", func(r *rackRig) { r.ok(r.activate().Close()) }, "p"},
		{"rename", func(r *rackRig) {
			p := r.activate()
			r.ok(p.Rename(bg, "q"))
			r.ok(p.Close())
		}, "p q"},
		{"resize", func(r *rackRig) {
			p, err := r.activateOn(r.paths(), api.ActivateOptions{Resize: true})
			r.ok(err)
			r.ok(p.Close())
		}, "p"},
		{"destroy", func(r *rackRig) { r.ok(r.activate().Destroy(bg)) }, "- p"},
		{"force", func(r *rackRig) {
			_, err := Create(bg, "q", r.capacity, api.CreateOptions{Force: true, Staging: r.staging}, r.options())
			r.ok(err)
		}, "- half p q"},
	}
	for _, step := range steps {
		states := 0
		ends := make(map[string]int)
		for at := uint64(1); ; at++ {
			rng := rand.New(rand.NewPCG(at, 1))
			r := newRackRig(t, at, 12*mib, 2, 1)
			r.meta = 64 << 10
			r = r.again(at, r.disks)
			if step.name != "create" {
				r.run(func() { r.create(api.CreateOptions{}) })
			}
			if step.name == "resize" {
				r.grow(16 * mib)
			}
			cutter := &devsim.Cutter{Sched: r.s, At: at}
			r.open.OnIO = cutter.OnIO
			err := r.s.Run(func() { step.do(r) })
			if err == nil {
				break // there are no more boundaries
			}
			if !errors.Is(err, sched.ErrCut) {
				t.Fatal(err)
			}
			after, cut := r.disks.Survivor(rng, devsim.CutOptions{})
			states++
			name := r.again(at, after).survivor(at%4 == 0)
			ends[name]++
			if !slices.Contains(strings.Fields(step.found), name) {
				t.Errorf("%s cut at boundary %d (%v) leaves the pool %q", step.name, at, cut, name)
			}
		}
		if states < 40 || len(ends) != len(strings.Fields(step.found)) && step.name != "force" {
			t.Errorf("%s: %d crash states, %v", step.name, states, ends)
		}
		t.Logf("%s: %d crash states, %v", step.name, states, ends)
	}
}

// grow makes the disks larger, of which pools know nothing.
func (r *rackRig) grow(size int64) {
	r.t.Helper()
	for i, content := range media(r.t, r.disks) {
		r.disks[i] = devsim.NewDisk(size, r.disks[i].Options())
		_, err := r.disks[i].WriteAt([]byte(content), 0)
		r.ok(err)
	}
}

// survivor names the pool that can be activated after a crash, "half" if there
// are drives without their metadata drive, "-" if there is nothing. A pool must
// work; with anew, a creation must be possible in any case.
func (r *rackRig) survivor(anew bool) string {
	r.t.Helper()
	name := "-"
	r.run(func() {
		for _, n := range []string{"p", "q"} {
			p, err := Activate(bg, n, r.paths(), api.ActivateOptions{}, r.options())
			switch api.CodeOf(err) { //nolint:exhaustive // the others are failures
			case 0:
			case api.ENOENT:
				continue
			case api.ESTATE: // the drives of a creation or destruction that was cut off
				if !strings.Contains(err.Error(), "metadata drive is missing") {
					r.t.Error(err)
				}
				if name == "-" {
					name = "half"
				}
				continue
			default:
				r.t.Error(err)
				continue
			}
			if name == "p" {
				r.t.Errorf("both %s and %s are there", name, n)
			}
			name = n
			r.putOn(p, 0, fill(10))
			r.putOn(p, 1, fill(10))
			r.putOn(p, 2, fill(10))
			r.ok(p.Close())
		}
		if anew {
			r.create(api.CreateOptions{Force: true})
			r.ok(r.activate().Close())
		}
	})
	return name
}

// A drive of a creation that was cut off is refused with a sentence that says
// so.
func TestCutOffCreationIsSaid(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.disks[0].Inject(devsim.Fault{Code: bdev.OpWrite, From: mib + 4096, To: 16 * mib, Err: syscall.EIO, Skip: 1})
		_, err := Create(bg, "p", r.capacity, api.CreateOptions{}, r.options())
		r.want(api.EIO, err)
		r.disks[0].Heal()
		r.create(api.CreateOptions{}) // what failed without a crash left nothing
		_, err = r.disks[0].WriteAt(make([]byte, 16*mib), 0)
		r.ok(err)
		_, err = r.activateOn(r.paths(), api.ActivateOptions{})
		r.want(api.ESTATE, err)
		if !strings.Contains(err.Error(), "never activated") {
			t.Error(err)
		}
		_, err = Create(bg, "p", r.capacity, api.CreateOptions{}, r.options())
		r.want(api.ESTATE, err)
		if !strings.Contains(err.Error(), "a creation that was cut off") || !strings.Contains(err.Error(), "a1") {
			t.Error(err)
		}
		r.create(api.CreateOptions{Force: true})
	})
}
