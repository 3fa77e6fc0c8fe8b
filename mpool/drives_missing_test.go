package mpool

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// proves S3: a missing drive is named; with force the pool is read-only without
// it, and nothing is written; never without the metadata drive.
func TestMissingDrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 1)
	var ids []layout.ObjectID
	var logs []layout.ObjectID
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		for slot := range uint16(3) {
			ids = append(ids, r.putOn(p, slot, fill(5000)))
			l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 50000, Class: api.Class(p.byslot[slot].entry.Class)})
			r.ok(err)
			r.ok(l.Commit(bg))
			r.ok(l.Put())
			logs = append(logs, l.ID())
		}
		r.ok(p.Close())
	})
	for set := 1; set < 7; set++ {
		n := r.again(uint64(set), r.disks.Clone())
		before := media(t, n.disks)
		n.run(func() {
			var paths []string
			for i, path := range n.paths() {
				if set&(1<<i) != 0 {
					paths = append(paths, path)
				}
			}
			_, err := n.activateOn(paths, api.ActivateOptions{})
			n.want(api.ESTATE, err)
			for slot := range 3 {
				if said := strings.Contains(err.Error(), fmt.Sprintf("drive %d (", slot)); set&1 != 0 && said != (set&(1<<slot) == 0) {
					t.Errorf("drives %03b: %v", set, err)
				}
			}
			if !strings.Contains(err.Error(), "16777216 bytes") {
				t.Errorf("drives %03b: %v", set, err)
			}
			p, err := n.activateOn(paths, api.ActivateOptions{Force: true})
			if set&1 == 0 {
				n.want(api.ESTATE, err)
				if !strings.Contains(err.Error(), "metadata drive") {
					t.Error(err)
				}
				return
			}
			n.ok(err)
			n.incomplete(p, set, ids, logs)
			n.ok(p.Close())
		})
		if !slices.Equal(before, media(t, n.disks)) {
			t.Errorf("drives %03b: a pool without a drive was written to", set)
		}
	}
	n := r.again(9, r.disks)
	n.run(func() {
		p, err := n.activateOn(n.paths(), api.ActivateOptions{Force: true})
		n.ok(err)
		n.ok(n.remove(p, ids[2]))
		n.ok(p.Close())
	})
}

// incomplete checks a pool that is active without the drives not in set.
func (r *rackRig) incomplete(p *Pool, set int, ids, logs []layout.ObjectID) {
	r.t.Helper()
	info, err := p.Info(bg)
	r.ok(err)
	if info.State != "read-only" || info.Health != "degraded" || info.Mblocks != 3 || info.Space.Total != 3*16*mib {
		r.t.Errorf("drives %03b: %+v", set, info)
	}
	listed := 0
	for _, err := range p.Objects(bg, api.Filter{}) {
		r.ok(err)
		listed++
	}
	if listed != 6 {
		r.t.Errorf("%d objects are listed", listed)
	}
	for slot, id := range ids {
		there := set&(1<<slot) != 0
		if want := map[bool]string{true: "online", false: "missing"}[there]; info.Drives[slot].State != want {
			r.t.Errorf("drives %03b: drive %d is %s", set, slot, info.Drives[slot].State)
		}
		_, err := read(p, id, 5000)
		l, lerr := p.Mlog(bg, logs[slot])
		r.ok(lerr)
		on := l.(*Mlog).obj.drive.dev != nil
		reader, lerr := l.OpenRead(bg)
		if lerr == nil {
			r.ok(reader.Close())
		}
		r.ok(l.Put())
		if there {
			r.ok(err)
		} else if r.want(api.EIO, err); !strings.Contains(err.Error(), fmt.Sprintf("drive %d (", slot)) {
			r.t.Error(err)
		}
		if on != (lerr == nil) {
			r.t.Errorf("open of the log on drive that is there %v: %v", on, lerr)
		}
	}
	_, err = p.AllocMblock(bg, api.AllocOptions{})
	r.want(api.EROFS, err)
	r.want(api.EROFS, p.SetRoots(bg, []api.Root{{Name: "x", ID: ids[0]}}))
	r.want(api.EROFS, p.Rename(bg, "z"))
	r.want(api.EROFS, p.Destroy(bg))
	r.want(api.EROFS, r.remove(p, ids[0]))
}

// media returns the content of disks.
func media(t *testing.T, disks devsim.Rack) []string {
	t.Helper()
	var all []string
	for _, d := range disks {
		b := make([]byte, d.Size())
		if _, err := d.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return all
}

// proves S3: two copies of one drive are refused, both named.
func TestTwoCopiesOfOneDrive(t *testing.T) {
	for i := range 3 {
		r := newRackRig(t, 1, 16*mib, 2, 1)
		r.run(func() {
			r.create(api.CreateOptions{})
			r.ok(r.activate().Close())
			b := []byte(media(t, r.disks[i:i+1])[0])
			twin := devsim.NewDisk(16*mib, devsim.DiskOptions{Name: "twin"})
			_, err := twin.WriteAt(b, 0)
			r.ok(err)
			r.disks = append(r.disks, twin)
			_, err = r.activateOn(append(r.paths(), "twin"), api.ActivateOptions{})
			r.want(api.ESTATE, err)
			if !strings.Contains(err.Error(), "twin") || !strings.Contains(err.Error(), r.paths()[i]) {
				t.Error(err)
			}
			r.ok(r.activate().Close())
		})
	}
}

// proves S2 S3: a drive without a whole superblock is missing, and the device is
// named that may be it.
func TestDriveWithoutSuperblock(t *testing.T) {
	for i := range 3 {
		r := newRackRig(t, 1, 16*mib, 2, 1)
		r.run(func() {
			r.create(api.CreateOptions{})
			r.ok(r.activate().Close())
			for _, off := range []int64{0, mib, 16*mib - 4096} {
				r.disks[i].FlipBit(off+200, 1)
			}
			_, err := r.activateOn(r.paths(), api.ActivateOptions{})
			r.want(api.ESTATE, err)
			if want := "no superblock copy is whole on " + r.paths()[i]; !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want %q in it", err, want)
			}
		})
	}
}

// proves S2 S3: the name in the newest superblock over all drives counts, and
// drives that lag are brought up.
func TestLaggingDrive(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 1)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		r.ok(p.Close())
		old := r.disks.Clone()
		p = r.activate()
		r.ok(p.Rename(bg, "q"))
		r.ok(p.Close())
		for i := 1; i < 3; i++ { // as a crash between the first drive and the others leaves them
			n := r.again(uint64(i), devsim.Rack{r.disks[0].Clone(), old[1].Clone(), old[2].Clone()})
			n.disks[3-i] = r.disks[3-i].Clone()
			n.run(func() {
				_, err := n.activateOn(n.paths(), api.ActivateOptions{})
				n.want(api.ENOENT, err)
				p, err := Activate(bg, "q", n.paths(), api.ActivateOptions{}, n.options())
				n.ok(err)
				epoch := p.epoch()
				n.ok(p.Close())
				for slot, d := range n.disks {
					for copyNo, off := range []int64{0, mib, 16*mib - 4096} {
						b := make([]byte, 4096)
						_, err := d.ReadAt(b, off)
						n.ok(err)
						sb, err := omf.Decode(b)
						if err != nil || sb.Epoch != epoch || sb.Name != "q" || int(sb.Slot) != slot || int(sb.Copy) != copyNo {
							t.Errorf("drive %d, copy %d: %+v, %v", slot, copyNo, sb, err)
						}
					}
				}
			})
		}
		// The metadata drive alone is old: what happened since is lost there.
		n := r.again(7, devsim.Rack{old[0].Clone(), r.disks[1].Clone(), r.disks[2].Clone()})
		n.run(func() {
			for _, name := range []string{"q", n.uuid(0)} {
				for _, force := range []bool{false, true} {
					_, err := Activate(bg, name, n.paths(), api.ActivateOptions{Force: force}, n.options())
					n.want(api.ESTATE, err)
					if !strings.Contains(err.Error(), "old copy of the metadata drive") {
						t.Error(err)
					}
				}
			}
		})
	})
}

// uuid returns the pool's UUID as a disk has it.
func (r *rackRig) uuid(disk int) string {
	b := make([]byte, 4096)
	_, err := r.disks[disk].ReadAt(b, 0)
	r.ok(err)
	sb, err := omf.Decode(b)
	r.ok(err)
	return sb.Pool.String()
}
