package mpool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/sched"
)

// proves S1
func TestCreateRefusesWhatIsNotBlank(t *testing.T) {
	type mark struct {
		name string
		off  int64
		b    []byte
		want string
	}
	marks := []mark{
		{"first byte", 0, []byte{1}, "unknown data at byte 0"},
		{"end of the first MiB", 1<<20 - 1, []byte{1}, "unknown data at byte 1048575"},
		{"last byte", 16<<20 - 1, []byte{1}, "unknown data at byte 16777215"},
		{"start of the last MiB", 15 << 20, []byte{1}, "unknown data at byte 15728640"},
		{"zfs", 128<<10 + 1024, []byte{0x0c, 0xb1, 0xba, 0x00, 0, 0, 0, 0}, "ZFS"},
		{"backup gpt", 16<<20 - 512, []byte("EFI PART"), "GPT partition table (at the end)"},
	}
	for _, s := range signatures() {
		marks = append(marks, mark{s.name, int64(s.offset), s.mark, s.name})
	}
	for _, m := range marks {
		r := newRig(t, 1, 16<<20)
		if _, err := r.disk.WriteAt(m.b, m.off); err != nil {
			t.Fatal(err)
		}
		r.run(func() {
			_, err := Create(bg, "p", []string{"sim"}, api.CreateOptions{}, r.options())
			r.want(api.ESTATE, err)
			if !strings.Contains(err.Error(), m.want) {
				t.Errorf("%s at %d: %v", m.name, m.off, err)
			}
			r.create(api.CreateOptions{Force: true})
			r.ok(r.activate().Close())
		})
	}
	// In the middle it may hold anything.
	r := newRig(t, 1, 16<<20)
	if _, err := r.disk.WriteAt([]byte{1}, 8<<20); err != nil {
		t.Fatal(err)
	}
	r.run(func() { r.create(api.CreateOptions{}) })
}

func TestCreateRefusesBadArguments(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		for _, c := range []struct {
			name    string
			devices []string
			o       api.CreateOptions
			want    api.Code
		}{
			{"", []string{"sim"}, api.CreateOptions{}, api.EINVAL},
			{"-x", []string{"sim"}, api.CreateOptions{}, api.EINVAL},
			{"a/b", []string{"sim"}, api.CreateOptions{}, api.EINVAL},
			{strings.Repeat("a", 64), []string{"sim"}, api.CreateOptions{}, api.EINVAL},
			{"p", nil, api.CreateOptions{}, api.EINVAL},
			{"p", []string{"sim"}, api.CreateOptions{ZoneSize: 65537}, api.EINVAL},
			{"p", []string{"sim"}, api.CreateOptions{ZoneSize: 32 << 10}, api.EINVAL},
			{"p", []string{"sim"}, api.CreateOptions{ZoneSize: 128 << 20}, api.EINVAL},
			{"p", []string{"sim"}, api.CreateOptions{ZoneSize: 1 << 20}, api.EINVAL}, // too few zones
			{"p", []string{"sim"}, api.CreateOptions{Mode: 0o1777}, api.EINVAL},
			{"p", []string{"sim"}, api.CreateOptions{Label: strings.Repeat("a", 64)}, api.EINVAL},
		} {
			_, err := Create(bg, c.name, c.devices, c.o, r.options())
			r.want(c.want, err)
		}
	})
	r = newRig(t, 1, 4<<20)
	r.run(func() {
		_, err := Create(bg, "p", []string{"sim"}, api.CreateOptions{}, r.options())
		r.want(api.EINVAL, err)
	})
}

// proves S6
func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		size, zone int64
	}{
		{64 << 20, 64 << 10},
		{1 << 30, 64 << 10},
		{1 << 30, 1 << 20},
		{1 << 30, 8 << 20},
		{10 << 30, 64 << 20},
		{64 << 30, 64 << 10},
		{64<<30 + 1, 1 << 20},
		{1 << 40, 1 << 20},
		{16 << 40, 64 << 20},
		{1<<30 + 12345, 64 << 10},
	} {
		g, err := divide(c.size, c.zone, 0)
		if err != nil {
			t.Fatal(err)
		}
		if over := g.overhead + g.rest; c.size >= 1<<30 && over*50 > c.size {
			t.Errorf("%d bytes in zones of %d: overhead %d is %.2f %%", c.size, c.zone, over, 100*float64(over)/float64(c.size))
		}
		if int64(g.zones)*c.zone+g.rest != c.size&^4095 {
			t.Errorf("%d bytes in zones of %d do not add up: %+v", c.size, c.zone, g)
		}
		for _, l := range g.logs {
			if end := int64(l.Start+uint64(l.Blocks)) * 4096; end > g.overhead || int64(l.Start)*4096 < 1<<20+4096 {
				t.Errorf("%d bytes in zones of %d: a metadata log ends at %d behind the head of %d", c.size, c.zone, end, g.overhead)
			}
		}
		if g.rest < omf.SuperblockSize {
			t.Errorf("no room for the last superblock: %+v", g)
		}
	}
	// create --dry-run says so and writes nothing.
	r := newRig(t, 1, 64<<20)
	r.run(func() {
		res := r.create(api.CreateOptions{DryRun: true})
		if res.OverheadBytes+res.UsableBytes != 64<<20 {
			t.Errorf("%+v does not add up", res)
		}
		got, err := Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
		r.want(api.ENOENT, err)
		if got != nil {
			t.Error("a dry run made a pool")
		}
		again := r.create(api.CreateOptions{})
		if again.OverheadBytes != res.OverheadBytes {
			t.Errorf("stated %d, is %d", res.OverheadBytes, again.OverheadBytes)
		}
		p := r.activate()
		info, err := p.Info(bg)
		r.ok(err)
		if info.Space.Overhead+info.Space.Remainder != res.OverheadBytes {
			t.Errorf("stated %d, is %+v", res.OverheadBytes, info.Space)
		}
		r.ok(p.Close())
	})
}

// proves S2: any one copy may be lost, torn or flipped, and is mended.
func TestAnySuperblockCopyMayBeLost(t *testing.T) {
	const size = 16 << 20
	for copyNo, off := range []int64{0, 1 << 20, size - 4096} {
		for _, how := range []string{"lost", "torn", "flipped"} {
			r := newRig(t, uint64(copyNo), size)
			r.run(func() {
				r.create(api.CreateOptions{})
				p := r.activate()
				id := r.put(p, 100)
				r.ok(p.Close())
				before := make([]byte, 4096)
				if _, err := r.disk.ReadAt(before, off); err != nil {
					t.Fatal(err)
				}
				switch how {
				case "lost":
					_, err := r.disk.WriteAt(make([]byte, 4096), off)
					r.ok(err)
				case "torn":
					_, err := r.disk.WriteAt(make([]byte, 512), off+1024)
					r.ok(err)
				default:
					r.disk.FlipBit(off+100, 3)
				}
				p = r.activate()
				r.ok(r.remove(p, id))
				r.ok(p.Close())
				b := make([]byte, 4096)
				_, err := r.disk.ReadAt(b, off)
				r.ok(err)
				if sb, err := omf.Decode(b); err != nil || sb.Epoch != 3 || sb.Copy != uint32(copyNo) {
					t.Errorf("copy %d was %s and is not mended: %v", copyNo, how, err)
				}
			})
		}
	}
}

// proves S2 S3: the newest copy wins, unknown features refuse, all lost is said.
func TestSuperblockChoice(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		b := make([]byte, 4096)
		_, err := r.disk.ReadAt(b, 0)
		r.ok(err)
		sb, err := omf.Decode(b)
		r.ok(err)
		edit := func(change func(*omf.Superblock)) {
			next := *sb
			next.Generation++
			change(&next)
			r.ok(next.Encode(b))
			_, err := r.disk.WriteAt(b, 0)
			r.ok(err)
		}
		edit(func(n *omf.Superblock) { n.ROCompat = 1 << 9 })
		_, err = Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
		r.want(api.ENOTSUP, err)
		edit(func(n *omf.Superblock) { n.Epoch += 1000 })
		p := r.activate()
		if p.epoch() != 1002 {
			t.Errorf("epoch %d", p.epoch())
		}
		r.ok(p.Close())
		for _, off := range []int64{0, 1 << 20, 16<<20 - 4096} {
			r.disk.FlipBit(off+60, 1)
		}
		_, err = Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
		r.want(api.ECORRUPT, err)
	})
}

// proves S3 S2
func TestResize(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		id := r.put(p, 50000)
		info, err := p.Info(bg)
		r.ok(err)
		r.ok(p.Close())
		big := devsim.NewDisk(32<<20, devsim.DiskOptions{})
		b := make([]byte, 16<<20)
		_, err = r.disk.ReadAt(b, 0)
		r.ok(err)
		_, err = big.WriteAt(b, 0)
		r.ok(err)
		small := r.disk
		r.disk = big
		p = r.activate() // grown, not used yet
		same, err := p.Info(bg)
		r.ok(err)
		if same.Space.Total != info.Space.Total {
			t.Errorf("used without resize: %+v", same.Space)
		}
		r.ok(p.Close())
		p, err = Activate(bg, "p", []string{"sim"}, api.ActivateOptions{Resize: true}, r.options())
		r.ok(err)
		grown, err := p.Info(bg)
		r.ok(err)
		if grown.Space.Total != 32<<20 || grown.Space.Free < info.Space.Free+(16<<20)-2*65536 {
			t.Errorf("after resize: %+v", grown.Space)
		}
		r.ok(r.remove(p, id))
		r.ok(p.Close())
		old := make([]byte, 4096)
		_, err = big.ReadAt(old, 16<<20-4096)
		r.ok(err)
		if firstNonZero(old) >= 0 {
			t.Error("the old end is not wiped")
		}
		// A device that has shrunk is refused.
		_, err = big.ReadAt(b, 0)
		r.ok(err)
		_, err = small.WriteAt(b, 0)
		r.ok(err)
		r.disk = small
		_, err = Activate(bg, "p", []string{"sim"}, api.ActivateOptions{}, r.options())
		r.want(api.ESTATE, err)
	})
}

// proves S5: create, rename and destroy have happened or not, whatever write a
// crash cuts off.
func TestLifecycleIsAtomic(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race")
	}
	const size = 12 << 20
	steps := []struct {
		name string
		do   func(r *rig)
		want func(names string) bool // the pools found afterwards
	}{
		{"create", func(r *rig) { r.create(api.CreateOptions{}) }, func(n string) bool { return n == "" || n == "p" }},
		{"rename", func(r *rig) {
			p := r.activate()
			r.ok(p.Rename(bg, "q"))
		}, func(n string) bool { return n == "p" || n == "q" }},
		{"destroy", func(r *rig) {
			p := r.activate()
			r.ok(p.Destroy(bg))
		}, func(n string) bool { return n == "" || n == "p" }},
		{"force", func(r *rig) {
			if _, err := Create(bg, "q", []string{"sim"}, api.CreateOptions{Force: true}, r.options()); err != nil {
				r.t.Error(err)
			}
		}, func(n string) bool { return n == "" || n == "p" || n == "q" }},
	}
	for _, step := range steps {
		states := 0
		for at := uint64(1); ; at++ {
			rng := rand.New(rand.NewPCG(at, 1))
			r := newRig(t, at, size)
			if step.name != "create" {
				r.run(func() { r.create(api.CreateOptions{}) })
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
			for range 4 {
				after, cut := r.disk.Survivor(rng, devsim.CutOptions{})
				states++
				names := found(t, after)
				if !step.want(names) {
					t.Errorf("%s cut at boundary %d (%v) leaves the pools %q", step.name, at, cut, names)
				}
			}
		}
		if states < 40 {
			t.Errorf("%s: only %d crash states", step.name, states)
		}
	}
}

// found names the pools that can be activated on a disk.
func found(t *testing.T, d *devsim.Disk) string {
	t.Helper()
	var names []string
	for _, name := range []string{"p", "q"} {
		r := newRig(t, 9, 1<<20)
		r.disk = d.Clone()
		r.run(func() {
			p, err := Activate(bg, name, []string{"sim"}, api.ActivateOptions{}, r.options())
			if api.CodeOf(err) == api.ENOENT {
				return
			}
			r.ok(err)
			names = append(names, name)
			r.put(p, 10)
			r.ok(p.Close())
		})
	}
	return strings.Join(names, ",")
}

func TestSettings(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{UID: 7, Mode: 0o600, Label: "first"})
		p := r.activate()
		label, spare, verify, mode := "second", uint8(20), false, uint32(0o777)
		r.ok(p.Set(bg, api.PoolSettings{Label: &label, SparePercent: &spare, ReadVerify: &verify}))
		bad := uint8(51)
		r.want(api.EINVAL, p.Set(bg, api.PoolSettings{SparePercent: &bad, Mode: &mode}))
		info, err := p.Info(bg)
		r.ok(err)
		if info.Space.Spare == 0 || info.Space.Free+info.Space.Spare+info.Space.Overhead+info.Space.Remainder != info.Space.Total {
			t.Errorf("spare: %+v", info.Space)
		}
		r.ok(p.Close())
		p = r.activate()
		again, err := p.Info(bg)
		r.ok(err)
		if again.UID != 7 || again.Mode != 0o600 || again.Label != "second" || again.Spare != 20 || again.Verify ||
			fmt.Sprint(again.Space) != fmt.Sprint(info.Space) {
			t.Errorf("after activation: %+v", again)
		}
		r.want(api.EBADF, func() error { r.ok(p.Close()); return p.Close() }())
	})
}

// proves S4: one of two that have the drive notices the other and turns
// read-only.
func TestFence(t *testing.T) {
	r := newRig(t, 1, 16<<20)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		b := make([]byte, 4096)
		_, err := r.disk.ReadAt(b, 0)
		r.ok(err)
		sb, err := omf.Decode(b)
		r.ok(err)
		sb.Epoch++
		sb.Generation++
		r.ok(sb.Encode(b))
		_, err = r.disk.WriteAt(b, 0)
		r.ok(err)
		for range 10 {
			blk, err := p.AllocMblock(bg, api.AllocOptions{Capacity: 10})
			if err == nil {
				err = blk.Commit(bg)
			}
			if err != nil {
				r.want(api.ESTALE, err)
				r.ok(p.Abandon(bg))
				return
			}
			r.ok(r.s.Sleep(bg, fencePeriod))
		}
		t.Error("nobody noticed")
	})
}
