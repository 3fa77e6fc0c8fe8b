package mpool

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

const mib = 1 << 20

// proves S6: what each drive costs is said by a dry run, which writes nothing,
// and is so afterwards. Drives without metadata have no logs.
func TestCreateOverManyDrives(t *testing.T) {
	r := newRackRig(t, 1, 32*mib, 2, 2)
	r.run(func() {
		dry := r.create(api.CreateOptions{DryRun: true})
		for _, d := range r.disks {
			b := make([]byte, 32*mib)
			if _, err := d.ReadAt(b, 0); err != nil || firstNonZero(b) >= 0 {
				t.Fatalf("the dry run wrote to a disk: %v", err)
			}
		}
		res := r.create(api.CreateOptions{})
		p := r.activate()
		info, err := p.Info(bg)
		r.ok(err)
		if len(info.Drives) != 4 || info.Health != "optimal" || info.Space.Total != 4*32*mib ||
			info.Space.Overhead+info.Space.Remainder != res.OverheadBytes || dry.OverheadBytes != res.OverheadBytes {
			t.Errorf("dry run %+v, creation %+v, pool %+v", dry, res, info)
		}
		for i, d := range info.Drives {
			was := res.Drives[i]
			if d.Slot != uint16(i) || d.Path != r.paths()[i] || d.State != "online" || d.Free != was.Free || d.UUID != was.UUID ||
				(d.Class == api.ClassStaging) != (i >= 2) || dry.Drives[i].Free != was.Free {
				t.Errorf("drive %d is %+v, created %+v, promised %+v", i, d, was, dry.Drives[i])
			}
			head := 1*mib + 64<<10
			if i > 0 && was.Size-was.Free != int64(head)+64<<10 {
				t.Errorf("drive %d without logs costs %d", i, was.Size-was.Free)
			}
		}
		if p.drives[0].geo.overhead <= p.drives[1].geo.overhead {
			t.Error("the metadata drive has no logs")
		}
		r.ok(p.Close())
	})
}

// proves S1 S4: the drive that is refused is named, with the reason; the same
// device by two names is refused, also by two that nobody relates.
func TestCreateOverManyRefuses(t *testing.T) {
	want := func(r *rackRig, code api.Code, err error, parts ...string) {
		r.t.Helper()
		r.want(code, err)
		for _, s := range parts {
			if !strings.Contains(err.Error(), s) {
				r.t.Errorf("%v; want %q in it", err, s)
			}
		}
	}
	r := newRackRig(t, 1, 32*mib, 2, 1)
	_, err := r.disks[2].WriteAt([]byte("XFSB"), 0)
	r.ok(err)
	r.run(func() {
		_, err := Create(bg, "p", r.capacity, api.CreateOptions{Staging: r.staging}, r.options())
		want(r, api.ESTATE, err, "XFS", "s0")
		if b := make([]byte, 4096); func() bool { _, err := r.disks[0].ReadAt(b, 0); return err != nil || firstNonZero(b) >= 0 }() {
			t.Error("a refused creation wrote")
		}
		_, err = Create(bg, "p", []string{"a0", "a1", "a0"}, api.CreateOptions{}, r.options())
		want(r, api.EINVAL, err, "a0", "twice")
		_, err = Create(bg, "p", []string{"a0"}, api.CreateOptions{Staging: []string{"a0"}}, r.options())
		want(r, api.EINVAL, err, "a0", "twice")
		_, err = Create(bg, "p", make([]string, omf.MaxDrives+1), api.CreateOptions{}, r.options())
		want(r, api.EINVAL, err, "64")
		_, err = Create(bg, "p", []string{"a0", "none"}, api.CreateOptions{}, r.options())
		want(r, api.ENOENT, err, "none")
		r.create(api.CreateOptions{Force: true})
		r.ok(r.activate().Close())
	})
	for _, paths := range [][]string{{"a0", "other", "a1"}, {"a1", "a0", "other"}, {"other", "a1", "a0"}} {
		r = newRackRig(t, 1, 32*mib, 2, 0)
		r.open.Shared = true
		r.run(func() {
			opt := r.options()
			open := opt.Open
			opt.Open = func(ctx context.Context, path string, ro bool) (*bdev.Drive, error) {
				if path == "other" {
					path = "a0"
				}
				return open(ctx, path, ro)
			}
			_, err := Create(bg, "p", paths, api.CreateOptions{}, opt)
			want(r, api.EINVAL, err, "same device")
			r.create(api.CreateOptions{}) // nothing is left of it
		})
	}
}

// proves S3: drives are found in any order, among others, by name and by UUID;
// two copies of one are refused; what is not there is named.
func TestActivateFindsDrives(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 2)
	other := newRackRig(t, 2, 16*mib, 1, 0)
	other.disks[0] = devsim.NewDisk(16*mib, devsim.DiskOptions{Name: "x"})
	other.capacity = []string{"x"}
	other.run(func() {
		_, err := Create(bg, "q", []string{"x"}, api.CreateOptions{}, other.options())
		other.ok(err)
	})
	r.disks = append(r.disks, other.disks[0], devsim.NewDisk(16*mib, devsim.DiskOptions{Name: "blank"}))
	r.run(func() {
		res := r.create(api.CreateOptions{})
		p := r.activate()
		var ids []layout.ObjectID
		for slot := range uint16(4) {
			ids = append(ids, r.putOn(p, slot, fill(5000+int(slot))))
		}
		r.ok(p.Close())
		name := "p"
		permutations(4, func(order []int) {
			paths := []string{"x", "blank", "none", "a0"}
			for _, i := range order {
				paths = append(paths, r.paths()[i])
			}
			p, err := Activate(bg, name, paths, api.ActivateOptions{}, r.options())
			r.ok(err)
			for slot, id := range ids {
				if got, err := read(p, id, 5000+slot); err != nil || !bytes.Equal(got, fill(5000+slot)) {
					t.Errorf("order %v: object on drive %d: %v", order, slot, err)
				}
			}
			info, err := p.Info(bg)
			r.ok(err)
			for i, d := range info.Drives {
				if d.Path != r.paths()[i] {
					t.Errorf("order %v: drive %d at %s", order, i, d.Path)
				}
			}
			r.ok(p.Close())
			name = res.UUID
		})
		_, err := Activate(bg, "nobody", append(r.paths(), "x"), api.ActivateOptions{}, r.options())
		r.want(api.ENOENT, err)
	})
}

// proves S2 S3: any drive may grow and is used after a resize; one that has
// shrunk is refused and named.
func TestResizeOfAnyDrive(t *testing.T) {
	for i := range 3 {
		r := newRackRig(t, uint64(i), 16*mib, 2, 1)
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			id := r.putOn(p, uint16(i), fill(5000))
			r.ok(p.Close())
			small := r.disks.Clone()
			r.disks[i] = devsim.NewDisk(32*mib, devsim.DiskOptions{Name: r.paths()[i]})
			_, err := r.disks[i].WriteAt([]byte(media(t, small[i:i+1])[0]), 0)
			r.ok(err)
			p, err = r.activateOn(r.paths(), api.ActivateOptions{Resize: true})
			r.ok(err)
			info, err := p.Info(bg)
			r.ok(err)
			if info.Drives[i].Size != 32*mib || info.Space.Total != 64*mib {
				t.Errorf("drive %d after resize: %+v", i, info)
			}
			_, err = read(p, id, 5000)
			r.ok(err)
			r.ok(p.Close())
			old := make([]byte, 4096)
			_, err = r.disks[i].ReadAt(old, 16*mib-4096)
			r.ok(err)
			if firstNonZero(old) >= 0 {
				t.Errorf("drive %d: the former end is not wiped", i)
			}
			r.ok(r.activate().Close())
			_, err = small[i].WriteAt([]byte(media(t, r.disks[i:i+1])[0])[:16*mib], 0)
			r.ok(err)
			r.disks[i] = small[i]
			_, err = r.activateOn(r.paths(), api.ActivateOptions{})
			r.want(api.ESTATE, err)
			if !strings.Contains(err.Error(), "shrunk") || !strings.Contains(err.Error(), r.paths()[i]) {
				t.Error(err)
			}
		})
	}
}

// Devices of the host that may not be opened are passed over, and counted when
// the pool is not found or not whole.
func TestHostScanPassesOver(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	hanging := devsim.NewDisk(16*mib, devsim.DiskOptions{Name: "hangs"})
	hanging.Inject(devsim.Fault{Delay: time.Hour})
	r.disks = append(r.disks, hanging)
	r.run(func() {
		r.create(api.CreateOptions{})
		r.ok(r.activate().Close())
		hide := true
		opt := r.options()
		open := opt.Open
		opt.Devices = func() ([]string, error) { return []string{"sda", "hangs", "a0", "sdb", "a1", "sdc", "sdd", "sde"}, nil }
		opt.Open = func(ctx context.Context, path string, ro bool) (*bdev.Drive, error) {
			if path[0] == 's' || path == "a1" && hide {
				return nil, fmt.Errorf("open %s: %w", path, syscall.EPERM)
			}
			return open(ctx, path, ro)
		}
		start := r.s.Now()
		_, err := Activate(bg, "none", nil, api.ActivateOptions{}, opt)
		r.want(api.ENOENT, err)
		if !strings.Contains(err.Error(), "7 could not be looked at") || !strings.Contains(err.Error(), "no permission") {
			t.Error(err)
		}
		if d := r.s.Now().Sub(start); d > lookFor+time.Second {
			t.Errorf("the scan took %v", d)
		}
		_, err = Activate(bg, "p", nil, api.ActivateOptions{}, opt)
		r.want(api.ESTATE, err)
		if !strings.Contains(err.Error(), "drive 1 (") || !strings.Contains(err.Error(), "could not be looked at") {
			t.Error(err)
		}
		hide = false
		p, err := Activate(bg, "p", nil, api.ActivateOptions{}, opt)
		r.ok(err)
		r.ok(p.Close())
	})
}

// proves S6: of several drives of 1 GiB or more, the pool's overhead is at most
// 2 %, that of a drive without metadata too, and the metadata takes at most a
// quarter of its drive.
func TestOverheadOfSeveralDrives(t *testing.T) {
	for _, sizes := range [][]int64{
		{1 << 30, 1 << 30},
		{1 << 30, 16 << 30, 16 << 30},
		{1 << 30, 4 << 40},
		slices.Repeat([]int64{1 << 30}, 64),
		slices.Repeat([]int64{16 << 40}, 64),
	} {
		var total, over int64
		for _, s := range sizes {
			total += s
		}
		zone := defaultZone(total)
		for i, s := range sizes {
			meta := int64(-1)
			if i == 0 {
				meta = metaLogBytes(total, s, zone)
			}
			g, err := divide(s, zone, meta)
			if err != nil {
				t.Fatal(err)
			}
			over += g.overhead + g.rest
			if share := 100 * float64(g.overhead+g.rest) / float64(s); i == 0 && share > 26 || i > 0 && share > 2 {
				t.Errorf("%d drives of %d bytes and more: drive %d costs %.2f %%", len(sizes), sizes[0], i, share)
			}
		}
		if share := 100 * float64(over) / float64(total); share > 2 {
			t.Errorf("%d drives of %d bytes and more cost %.2f %%", len(sizes), sizes[0], share)
		}
	}
}

// A pool may have as many drives as the superblock has room for.
func TestMostDrives(t *testing.T) {
	if raced {
		t.Skip("one task at a time: there is nothing to race")
	}
	r := newRackRig(t, 1, 12*mib, omf.MaxDrives-8, 8)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		drives := make(map[uint16]bool)
		for i := range 2 * omf.MaxDrives {
			id := r.putClass(p, api.Class(i%2), 100)
			o, _ := p.table.Lookup(id)
			drives[o.Extent.Drive] = true
		}
		if len(drives) < omf.MaxDrives/2 {
			t.Errorf("objects lie on %d of %d drives", len(drives), omf.MaxDrives)
		}
		r.ok(p.Close())
		paths := r.paths()
		slices.Reverse(paths)
		p, err := r.activateOn(paths, api.ActivateOptions{})
		r.ok(err)
		r.ok(p.Destroy(bg))
		r.create(api.CreateOptions{})
	})
}
