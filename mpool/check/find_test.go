package check_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
	"github.com/mpool-go/mpool/test/loopdev"
)

// told shows what a scan found on a few lines.
func told(found []check.Found) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %s %s", f.Name, f.UUID, f.State)
		if f.Text != "" {
			fmt.Fprintf(&b, ": %s", f.Text)
		}
		b.WriteByte('\n')
		for _, d := range f.Drives {
			fmt.Fprintf(&b, "  %d %v %s at %q, %d bytes\n", d.Slot, d.Class, d.State, d.Path, d.Size)
		}
	}
	return b.String()
}

// A scan says which pools are there, whole, in part, damaged or destroyed.
//
// proves S3 S45
func TestScan(t *testing.T) {
	blank := devsim.NewDisk(fleetDisk, devsim.DiskOptions{})
	tiny := devsim.NewDisk(4096, devsim.DiskOptions{})
	foreign := devsim.NewDisk(fleetDisk, devsim.DiskOptions{})
	write(t, foreign, pattern(1<<20), 0)
	var out strings.Builder
	for _, c := range []struct {
		name  string
		disks func(f *fleet) []*devsim.Disk
	}{
		{"nothing", func(*fleet) []*devsim.Disk { return []*devsim.Disk{blank, tiny, foreign} }},
		{"whole, in any order", func(f *fleet) []*devsim.Disk { return []*devsim.Disk{blank, f.disks[2], f.disks[0], f.disks[1]} }},
		{"a drive behind", func(f *fleet) []*devsim.Disk { f.lag(t, 1, 0); return f.disks }},
		{"renamed, a drive behind", func(f *fleet) []*devsim.Disk {
			f.use(t, func(p *mpool.Pool) { do(t, p.Rename(bg, "other")) })
			f.lag(t, 1, 0)
			return []*devsim.Disk{f.disks[1], f.disks[2], f.disks[0]}
		}},
		{"without the second", func(f *fleet) []*devsim.Disk { return []*devsim.Disk{f.disks[0], f.disks[2]} }},
		{"without the metadata drive", func(f *fleet) []*devsim.Disk { return f.disks[1:] }},
		{"a creation that was cut off", func(f *fleet) []*devsim.Disk { return f.had[0][1:] }},
		{"a drive twice", func(f *fleet) []*devsim.Disk { return append(f.disks, f.disks[1].Clone()) }},
		{"a copy lost", func(f *fleet) []*devsim.Disk {
			write(t, f.disks[1], make([]byte, page), 0)
			return f.disks
		}},
		{"all copies of a drive lost", func(f *fleet) []*devsim.Disk {
			for i := range omf.Copies {
				flip(f.disks[1], f.place(i)+50)
			}
			return f.disks
		}},
		{"destroyed, not wiped", func(f *fleet) []*devsim.Disk {
			for i := range omf.Copies {
				f.change(t, 0, i, func(sb *omf.Superblock) { sb.Generation++; sb.State = omf.StateDestroyed })
			}
			return []*devsim.Disk{f.disks[0], f.disks[2]}
		}},
		{"two pools of one name", func(f *fleet) []*devsim.Disk {
			other := newFixture(t)
			other.putSuperblocks(t, func(sb *omf.Superblock) { sb.Pool[0] ^= 1 })
			return append(f.disks, other.disk)
		}},
	} {
		disks := c.disks(newFleet(t))
		found, unread, err := check.Scan(bg, names(len(disks)), check.Options{Open: opener(disks...)})
		do(t, err)
		if len(unread) > 0 {
			t.Errorf("%s: %v", c.name, unread)
		}
		fmt.Fprintf(&out, "# %s\n%s", c.name, told(found))
	}
	golden(t, "scan.golden", plainText(out.String()))
}

// A pool is found by name or UUID among devices of which some cannot be read.
//
// proves S3
func TestFind(t *testing.T) {
	f := newFleet(t)
	other := newFixture(t)
	other.putSuperblocks(t, func(sb *omf.Superblock) { sb.Pool[0] ^= 1; sb.Name = "other" })
	broken := devsim.NewDisk(fleetDisk, devsim.DiskOptions{})
	broken.SetUnreadable(0, page)
	disks := []*devsim.Disk{broken, f.disks[1], other.disk, f.disks[0], f.disks[2]}
	o := check.Options{Open: opener(disks...)}
	uuid := run(t, f.disks...).UUID
	for _, name := range []string{"pool", uuid, strings.ToUpper(uuid)} {
		devices, unread, err := check.Find(bg, name, append(names(5), "d9"), o)
		do(t, err)
		if !slices.Equal(devices, []string{"d3", "d1", "d4"}) || len(unread) != 2 {
			t.Errorf("%s: %v, %v", name, devices, unread)
		}
	}
	if devices, _, err := check.Find(bg, "other", names(5), o); err != nil || !slices.Equal(devices, []string{"d2"}) {
		t.Error(devices, err)
	}
	other.putSuperblocks(t, func(sb *omf.Superblock) { sb.Name = "pool" })
	ended, cancel := context.WithCancel(bg)
	cancel()
	for _, c := range []struct {
		ctx   context.Context
		name  string
		paths []string
		want  api.Code
	}{
		{bg, "none", names(5), api.ENOENT},
		{bg, "", names(5), api.ENOENT},
		{bg, "pool", names(5), api.ESTATE},
		{bg, "pool", nil, api.ENOENT},
		{ended, "pool", names(5), api.ECANCELED},
	} {
		if _, _, err := check.Find(c.ctx, c.name, c.paths, o); api.CodeOf(err) != c.want {
			t.Errorf("%q on %v: %v, want %v", c.name, c.paths, err, c.want)
		}
	}
	// Of two pools of a name the one that was destroyed does not count.
	other.putSuperblocks(t, func(sb *omf.Superblock) { sb.State = omf.StateDestroyed })
	if devices, _, err := check.Find(bg, "pool", names(5), o); err != nil || len(devices) != 3 {
		t.Error(devices, err)
	}
}

// Real files: a look does not mind that a pool is active, and keeps nobody out.
//
// proves S4
func TestScanFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drive")
	do(t, os.WriteFile(path, nil, 0o600))
	do(t, os.Truncate(path, diskSize))
	o := mpool.Options{MetadataBytes: metaBytes}
	_, err := mpool.Create(bg, "pool", []string{path}, api.CreateOptions{}, o)
	do(t, err)
	p, err := mpool.Activate(bg, "pool", []string{path}, api.ActivateOptions{}, o)
	do(t, err)
	devices, unread, err := check.Find(bg, "pool", []string{path, path + "2"}, check.Options{})
	if err != nil || !slices.Equal(devices, []string{path}) || len(unread) != 1 || api.CodeOf(unread[0].Err) != api.ENOENT {
		t.Error(devices, unread, err)
	}
	if _, err := check.Repair(bg, devices, check.Options{}); api.CodeOf(err) != api.EBUSY {
		t.Errorf("repair of an active pool: %v", err)
	}
	do(t, p.Close())
	if _, _, err := check.Find(bg, "pool", []string{path + "2"}, check.Options{}); api.CodeOf(err) != api.ENOENT {
		t.Error(err)
	}
}

// A repair of a real file.
//
// proves S45
func TestRepairFile(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range 3 {
		paths = append(paths, filepath.Join(dir, fmt.Sprintf("drive%d", i)))
		do(t, os.WriteFile(paths[i], nil, 0o600))
		do(t, os.Truncate(paths[i], diskSize))
	}
	o := mpool.Options{MetadataBytes: metaBytes}
	_, err := mpool.Create(bg, "pool", paths[:2], api.CreateOptions{Staging: paths[2:]}, o)
	do(t, err)
	p, err := mpool.Activate(bg, "pool", paths, api.ActivateOptions{}, o)
	do(t, err)
	for range 4 {
		put(t, p, 200000)
	}
	do(t, p.Close())
	for i, path := range paths {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		do(t, err)
		_, err = file.WriteAt(make([]byte, page), []int64{0, omf.SecondCopyOffset, diskSize - page}[i])
		do(t, err)
		do(t, file.Close())
	}
	r, err := check.Run(bg, paths, check.Options{Data: true})
	do(t, err)
	if codes(r.Problems) != times(2, check.SuperblockMissing) || codes(r.Notes) != check.SuperblockMissing {
		t.Fatal(r.Problems, r.Notes)
	}
	r, err = check.Repair(bg, paths, check.Options{Data: true})
	do(t, err)
	if !r.OK || len(left(r.Problems)) > 0 || len(left(r.Notes)) > 0 || r.VerifiedBytes != 800000 {
		t.Fatal(r)
	}
	r, err = check.Run(bg, paths, check.Options{Data: true})
	do(t, err)
	if !r.OK || len(r.Notes) > 0 || r.Superblocks != 9 {
		t.Fatal(r)
	}
}

// The host's block devices: those with a medium that no other one lies on.
func TestHostDevices(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]string{"sda": "100\n", "sdb": "100\n", "loop0": "0\n", "cciss!c0d0": "5\n"} {
		do(t, os.MkdirAll(filepath.Join(dir, name, "holders"), 0o755))
		do(t, os.WriteFile(filepath.Join(dir, name, "size"), []byte(size), 0o600))
	}
	do(t, os.Mkdir(filepath.Join(dir, "sdb", "holders", "dm-0"), 0o755))
	do(t, os.Mkdir(filepath.Join(dir, "strange"), 0o755))
	list, err := check.BlockDevices(dir, "/dev")
	do(t, err)
	if !slices.Equal(list, []string{"/dev/cciss/c0d0", "/dev/sda"}) {
		t.Error(list)
	}
	if _, err := check.BlockDevices(filepath.Join(dir, "none"), "/dev"); api.CodeOf(err) != api.EIO {
		t.Error(err)
	}
}

// A pool on a block device is found among the host's, checked and mended.
//
// proves S3 S4 S45
func TestLoopDevice(t *testing.T) {
	dev := loopdev.New(t, diskSize, loopdev.Options{})
	o := mpool.Options{MetadataBytes: metaBytes}
	name := fmt.Sprintf("check-%d", os.Getpid())
	_, err := mpool.Create(bg, name, []string{dev.Path}, api.CreateOptions{}, o)
	do(t, err)
	p, err := mpool.Activate(bg, name, []string{dev.Path}, api.ActivateOptions{}, o)
	do(t, err)
	put(t, p, 100000)
	do(t, p.Close())
	all, err := check.HostDevices()
	do(t, err)
	devices, _, err := check.Find(bg, name, all, check.Options{})
	if err != nil || !slices.Equal(devices, []string{dev.Path}) {
		t.Fatal(devices, err)
	}
	file, err := os.OpenFile(dev.Path, os.O_WRONLY, 0)
	do(t, err)
	_, err = file.WriteAt(make([]byte, page), omf.SecondCopyOffset)
	do(t, err)
	do(t, file.Close())
	r, err := check.Repair(bg, devices, check.Options{Data: true})
	if err != nil || !r.OK || codes(r.Problems) != check.SuperblockMissing || !r.Problems[0].Repaired {
		t.Fatal(r, err)
	}
	r, err = check.Run(bg, devices, check.Options{Data: true})
	if err != nil || !r.OK || len(r.Notes) > 0 || r.VerifiedBytes != 100000 {
		t.Fatal(r, err)
	}
}
