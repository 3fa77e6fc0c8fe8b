package check_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// fleet is a pool of three drives: d0 and d1 of the class capacity, d2 of the
// class staging; the metadata lies on d0.
type fleet struct {
	disks []*devsim.Disk
	had   [][]*devsim.Disk // the disks at moments before
	log   layout.ObjectID  // on d2
}

const fleetDisk = 12 << 20

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{}
	for range 3 {
		f.disks = append(f.disks, devsim.NewDisk(fleetDisk, devsim.DiskOptions{WriteThrough: true}))
	}
	_, err := mpool.Create(bg, "pool", names(2), api.CreateOptions{Staging: []string{"d2"}}, rackOptions(f.disks...))
	do(t, err)
	f.keep()
	f.use(t, func(p *mpool.Pool) {
		for n := range 12 {
			f.put(t, p, 1000+n*7000, api.Class(n%3/2))
		}
		l, err := p.AllocMlog(bg, api.AllocOptions{Capacity: 30000, Class: api.ClassStaging})
		do(t, err)
		do(t, l.Commit(bg))
		f.log = l.ID()
		do(t, l.Put())
		appendLog(t, p, f.log, 10, 6000, 0)
		id, err := p.CreateMDC(bg, api.AllocOptions{Capacity: 30000})
		do(t, err)
		useContainer(t, p, id)
	})
	f.keep()
	f.use(t, func(p *mpool.Pool) { f.put(t, p, 5, api.ClassCapacity) })
	return f
}

func (f *fleet) keep() {
	var now []*devsim.Disk
	for _, d := range f.disks {
		now = append(now, d.Clone())
	}
	f.had = append(f.had, now)
}

func (f *fleet) use(t testing.TB, g func(p *mpool.Pool)) {
	t.Helper()
	p, err := mpool.Activate(bg, "pool", names(len(f.disks)), api.ActivateOptions{}, rackOptions(f.disks...))
	do(t, err)
	g(p)
	do(t, p.Close())
}

func (f *fleet) put(t testing.TB, p *mpool.Pool, n int, class api.Class) {
	t.Helper()
	b, err := p.AllocMblock(bg, api.AllocOptions{Capacity: int64(n), Class: class})
	do(t, err)
	_, err = b.Write(bg, pattern(n))
	do(t, err)
	do(t, b.Commit(bg))
	do(t, b.Put())
}

// place is where a superblock copy lies.
func (f *fleet) place(i int) int64 {
	return []int64{0, omf.SecondCopyOffset, fleetDisk - omf.SuperblockSize}[i]
}

// superblocksOf gives a disk the superblock copies of another.
func (f *fleet) superblocksOf(t testing.TB, disk int, from *devsim.Disk) {
	t.Helper()
	for i := range omf.Copies {
		write(t, f.disks[disk], readPage(t, from, f.place(i)), f.place(i))
	}
}

// lag puts a drive's superblocks back to those of an earlier moment.
func (f *fleet) lag(t testing.TB, disk, moment int) { f.superblocksOf(t, disk, f.had[moment][disk]) }

// change changes one superblock copy of a disk.
func (f *fleet) change(t testing.TB, disk, i int, change func(*omf.Superblock)) {
	t.Helper()
	sb, err := omf.Decode(readPage(t, f.disks[disk], f.place(i)))
	do(t, err)
	change(sb)
	b := make([]byte, page)
	do(t, sb.Encode(b))
	write(t, f.disks[disk], b, f.place(i))
}

// fleetBreakage is a way to break a pool of several drives: what the check says,
// and what a repair leaves of it.
type fleetBreakage struct {
	name            string
	do              func(t *testing.T, f *fleet)
	problems, notes string
	left, leftNotes string
}

func times(n int, code string) string { return strings.TrimSpace(strings.Repeat(code+" ", n)) }

func fleetBreakages() []fleetBreakage {
	older := func(n int) string { return times(n, check.SuperblockOlder) }
	// What was on the drive is looked for on the first device that says it is it.
	elsewhere := strings.Join([]string{
		check.DeviceTwice, check.DeviceMissing, check.LogNoTail, times(27, check.DataChecksum), check.DataSums,
	}, " ")
	return []fleetBreakage{
		{"nothing", func(*testing.T, *fleet) {}, "", "", "", ""},
		{"a drive is behind", func(t *testing.T, f *fleet) { f.lag(t, 1, 1) }, "", older(3), "", ""},
		{"two drives are behind, one far", func(t *testing.T, f *fleet) { f.lag(t, 1, 0); f.lag(t, 2, 1) }, "", older(6), "", ""},
		{"a drive is half behind", func(t *testing.T, f *fleet) {
			for i := 1; i < 3; i++ {
				write(t, f.disks[2], readPage(t, f.had[1][2], f.place(i)), f.place(i))
			}
		}, "", older(2), "", ""},
		{"a drive is behind, and its first copy is torn", func(t *testing.T, f *fleet) {
			f.lag(t, 1, 1)
			flip(f.disks[1], 100)
		}, "", check.SuperblockDamaged + " " + older(2), "", ""},
		{"a drive is behind, and only its first copy is left", func(t *testing.T, f *fleet) {
			f.lag(t, 1, 1)
			flip(f.disks[1], f.place(1)+100)
			flip(f.disks[1], f.place(2)+100)
		}, "", older(1) + " " + times(2, check.SuperblockDamaged), "", ""},
		{"a drive is behind, and its second copy is torn", func(t *testing.T, f *fleet) {
			f.lag(t, 1, 1)
			flip(f.disks[1], f.place(1)+100)
		}, check.SuperblockDamaged, older(2), "", ""},
		{"each drive has lost a copy", func(_ *testing.T, f *fleet) {
			for i := range f.disks {
				flip(f.disks[i], f.place(i)+100)
			}
		}, check.SuperblockDamaged, times(2, check.SuperblockDamaged), "", ""},
		{"a drive has lost all copies", func(t *testing.T, f *fleet) {
			for i := range omf.Copies {
				write(t, f.disks[1], make([]byte, page), f.place(i))
			}
		}, check.SuperblockNone + " " + check.DeviceMissing, "", check.SuperblockNone + " " + check.DeviceMissing, ""},
		{"the metadata drive is old", func(t *testing.T, f *fleet) { f.lag(t, 0, 1) }, older(3), "", older(3), check.RepairRefused},
		{
			"the metadata drive is old, its image too", func(_ *testing.T, f *fleet) { f.disks[0] = f.had[1][0] },
			older(3), "", older(3), check.RepairRefused,
		},
		{"a drive is older but of a later activation", func(t *testing.T, f *fleet) {
			for i := range omf.Copies {
				f.change(t, 1, i, func(sb *omf.Superblock) { sb.Generation--; sb.Epoch += 5 })
			}
		}, older(3), "", older(3), check.RepairRefused},
		{
			"a drive has another's copies", func(t *testing.T, f *fleet) { f.superblocksOf(t, 1, f.disks[2]) },
			elsewhere, "", elsewhere, "",
		},
		{"one copy is another drive's", func(t *testing.T, f *fleet) {
			write(t, f.disks[1], readPage(t, f.disks[2], f.place(1)), f.place(1))
		}, check.SuperblockMisplaced, "", "", ""},
		{"a drive is named otherwise", func(t *testing.T, f *fleet) {
			for i := range omf.Copies {
				f.change(t, 1, i, func(sb *omf.Superblock) { sb.Name = "other" })
			}
		}, times(3, check.SuperblockDiffers), "", "", ""},
		{"two drives are named otherwise", func(t *testing.T, f *fleet) {
			for i := range omf.Copies {
				f.change(t, 1, i, func(sb *omf.Superblock) { sb.Name = "other" })
				f.change(t, 2, i, func(sb *omf.Superblock) { sb.Name = "other" })
			}
		}, times(6, check.SuperblockDiffers), "", times(6, check.SuperblockDiffers), check.RepairRefused},
		{"a log's copy on another drive is lost", func(t *testing.T, f *fleet) {
			f.loseCopy(t)
		}, "", check.LogCopy, "", ""},
		{"a class that is unknown", func(t *testing.T, f *fleet) {
			for disk := range f.disks {
				for i := range omf.Copies {
					f.change(t, disk, i, func(sb *omf.Superblock) { sb.Drives[2].Class = 7 })
				}
			}
			flip(f.disks[1], f.place(1)+100)
		}, check.SuperblockDamaged + " " + check.Geometry, "", check.SuperblockDamaged + " " + check.Geometry, check.RepairRefused},
		{"a drive has left the pool", func(t *testing.T, f *fleet) {
			for disk := range f.disks[:2] {
				for i := range omf.Copies {
					f.change(t, disk, i, func(sb *omf.Superblock) { sb.Generation++; sb.Drives[2].State = omf.DriveRemoved })
				}
			}
		}, check.DeviceForeign + " " + times(5, check.ExtentDrive), "", check.DeviceForeign + " " + times(5, check.ExtentDrive), ""},
	}
}

// loseCopy loses one of the two copies of the last page of the log on d2.
func (f *fleet) loseCopy(t *testing.T) {
	t.Helper()
	for off := int64(0); off < fleetDisk; off += page {
		b := readPage(t, f.disks[2], off)
		if le.Uint32(b) == 0x31674C6D && b[5] == 3 { // a tail of a clean close
			flip(f.disks[2], off+90)
			return
		}
	}
	t.Fatal("d2 has no log")
}

// What is wrong with pools of several drives, before a repair and after.
//
// proves S2 S3 S45
func TestFleetBroken(t *testing.T) {
	if raced {
		t.Skip("what runs side by side in it is raced by TestBroken and TestAgreement")
	}
	var out strings.Builder
	for _, b := range fleetBreakages() {
		t.Run(b.name, func(t *testing.T) {
			f := newFleet(t)
			b.do(t, f)
			r := run(t, f.disks...)
			if codes(r.Problems) != b.problems || codes(r.Notes) != b.notes {
				t.Errorf("problems %q, want %q; notes %q, want %q: %v %v",
					codes(r.Problems), b.problems, codes(r.Notes), b.notes, r.Problems, r.Notes)
			}
			fmt.Fprintln(&out, b.name)
			for _, p := range r.Problems {
				fmt.Fprintf(&out, "  %v\n", p)
			}
			for _, p := range r.Notes {
				fmt.Fprintf(&out, "  note %v\n", p)
			}
			r, _ = tryRepair(t, f.disks...)
			if got := codes(left(r.Problems)); got != b.left {
				t.Errorf("problems left %q, want %q: %v", got, b.left, r.Problems)
			}
			if got := codes(left(r.Notes)); got != b.leftNotes {
				t.Errorf("notes left %q, want %q: %v", got, b.leftNotes, r.Notes)
			}
			tell(&out, "", r.Problems)
			tell(&out, "note ", r.Notes)
			agreeWith(t, f.disks, r)
		})
	}
	golden(t, "fleet.golden", plainText(out.String()))
}

// agreeWith looks that activation has no trouble with what has no problem.
func agreeWith(t *testing.T, disks []*devsim.Disk, r check.Report) {
	t.Helper()
	if good, there := contents(disks...); r.OK && !good {
		t.Errorf("the check finds nothing, activation does: %s", there)
	}
}

// A pool of several drives that is as it should be: its drives and their space.
//
// proves S7 S45
func TestFleetClean(t *testing.T) {
	f := newFleet(t)
	r := wantClean(t, f.disks...)
	if len(r.Drives) != 3 || r.Superblocks != 9 || r.Mblocks != 13 || r.Mlogs != 3 {
		t.Fatalf("%+v", r)
	}
	var sum check.Space
	for i, d := range r.Drives {
		s := d.Space
		if d.Path != names(3)[i] || int(d.Slot) != i || (d.Class == api.ClassStaging) != (i == 2) || d.Metadata != (i == 0) ||
			d.Generation != 3 || d.Epoch != 3 {
			t.Errorf("%+v", d)
		}
		if s.Total != fleetDisk || s.Free+s.Live+s.Overhead+s.Remainder != s.Total || s.Live == 0 {
			t.Errorf("space of drive %d does not add up: %+v", i, s)
		}
		sum.Total, sum.Free, sum.Live = sum.Total+s.Total, sum.Free+s.Free, sum.Live+s.Live
	}
	if r.Space.Total != sum.Total || r.Space.Free != sum.Free || r.Space.Live != sum.Live {
		t.Errorf("%+v", r.Space)
	}
	// In any order.
	again := run(t, f.disks[2], f.disks[0], f.disks[1])
	if !again.OK || again.Objects != r.Objects || again.Drives[0].Path != "d1" {
		t.Errorf("%+v", again)
	}
}

// Drives that are not there, that are there twice, and those of two pools.
//
// proves S3 S45
func TestFleetDevices(t *testing.T) {
	f, other := newFleet(t), newFixture(t)
	use(t, other.disk, func(p *mpool.Pool) { do(t, p.Rename(bg, "other")) })
	other.putSuperblocks(t, func(sb *omf.Superblock) { sb.Pool[0] ^= 1 })
	var out strings.Builder
	for _, c := range []struct {
		name            string
		disks           []*devsim.Disk
		problems, notes string
	}{
		{"without the second", []*devsim.Disk{f.disks[0], f.disks[2]}, check.DeviceMissing, ""},
		{"without the first", f.disks[1:], check.DeviceMissing + " " + check.MetadataMissing, ""},
		{"the last alone", f.disks[2:], times(2, check.DeviceMissing) + " " + check.MetadataMissing, ""},
		{"the second twice", append(slices.Clone(f.disks), f.disks[1].Clone()), check.DeviceTwice, ""},
		{"another pool's among them", []*devsim.Disk{f.disks[0], other.disk, f.disks[1], f.disks[2]}, check.DeviceForeign, ""},
		{"another pool's first", append([]*devsim.Disk{other.disk}, f.disks...), times(3, check.DeviceForeign), ""},
	} {
		r := run(t, c.disks...)
		if codes(r.Problems) != c.problems || codes(r.Notes) != c.notes {
			t.Errorf("%s: %q, want %q; %q, want %q", c.name, codes(r.Problems), c.problems, codes(r.Notes), c.notes)
		}
		fmt.Fprintln(&out, c.name)
		for _, p := range append(r.Problems, r.Notes...) {
			fmt.Fprintf(&out, "  %v\n", p)
		}
	}
	golden(t, "fleet-device.golden", plainText(out.String()))
}

// The two logs of a container lie on one drive.
//
// proves S45
func TestFleetContainerApart(t *testing.T) {
	f := newFleet(t)
	meta := &fixture{disk: f.disks[0]}
	meta.learn(t)
	for _, o := range meta.objects {
		if o.Partner == 0 || o.ID > o.Partner {
			continue
		}
		const free = fleetDisk/2/page - fleetDisk/2/page%16
		meta.record(t, func(r *omf.Record) {
			r.Relocate(o.ID, o.Birth, layout.Extent{Drive: 1 - o.Extent.Drive, Start: free, Blocks: o.Extent.Blocks})
		})
		r := run(t, f.disks...)
		if got := codes(r.Problems); !strings.HasPrefix(got, times(2, check.PartnerLink)) {
			t.Errorf("%q: %v", got, r.Problems)
		}
		return
	}
	t.Fatal("there is no container")
}

// A pool of as many drives as there may be, of which many are behind.
//
// proves S3 S45
func TestFleetOf64(t *testing.T) {
	if raced {
		t.Skip("what runs side by side in it is raced by TestBroken and TestAgreement")
	}
	f := &fleet{}
	for range omf.MaxDrives {
		f.disks = append(f.disks, devsim.NewDisk(fleetDisk, devsim.DiskOptions{WriteThrough: true}))
	}
	all := names(omf.MaxDrives)
	_, err := mpool.Create(bg, "pool", all[:40], api.CreateOptions{Staging: all[40:]}, rackOptions(f.disks...))
	do(t, err)
	f.keep()
	f.use(t, func(p *mpool.Pool) {
		for n := range 2 * omf.MaxDrives {
			f.put(t, p, 1+n, api.Class(n%2))
		}
	})
	if r := wantClean(t, f.disks...); len(r.Drives) != omf.MaxDrives || r.Superblocks != 3*omf.MaxDrives || r.Mblocks != 2*omf.MaxDrives {
		t.Fatalf("%+v", r)
	}
	for i := 1; i < omf.MaxDrives; i += 2 {
		f.lag(t, i, 0)
	}
	slices.Reverse(f.disks)
	r, wrote := tryRepair(t, f.disks...)
	if !wrote || !r.OK || codes(r.Notes) != times(3*omf.MaxDrives/2, check.SuperblockOlder) || len(left(r.Notes)) > 0 {
		t.Errorf("%v %v", r.Problems, r.Notes)
	}
}
