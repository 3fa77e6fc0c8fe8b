package check_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// repairBreakages are ways to break a pool that matter to a repair; the codes
// are those that it leaves.
func repairBreakages() []breakage {
	copies := func(list []int, change func(*omf.Superblock)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			for _, i := range list {
				f.putSuperblock(t, i, change)
			}
		}
	}
	older := func(sb *omf.Superblock) { sb.Generation--; sb.Epoch-- }
	flipped := func(f *fixture, list ...int) {
		for _, i := range list {
			flip(f.disk, f.copyOffset(i)+100)
		}
	}
	return []breakage{
		{"two copies flipped, the last is left", func(_ *testing.T, f *fixture) { flipped(f, 0, 1) }, "", ""},
		{"two copies flipped, the first is left", func(_ *testing.T, f *fixture) { flipped(f, 1, 2) }, "", ""},
		{"two copies flipped, the last is older", func(t *testing.T, f *fixture) {
			copies([]int{2}, older)(t, f)
			flipped(f, 0, 1)
		}, check.LogEpoch, check.SuperblockDamaged + " " + check.SuperblockDamaged + " " + check.RepairRefused},
		{"first copy older", copies([]int{0}, older), "", ""},
		{
			"first copy of another name", copies([]int{0}, func(sb *omf.Superblock) { sb.Name = "other" }),
			check.SuperblockDiffers + " " + check.SuperblockDiffers, check.RepairRefused,
		},
		{"all copies differ", func(t *testing.T, f *fixture) {
			for i, name := range []string{"a", "b", "c"} {
				f.putSuperblock(t, i, func(sb *omf.Superblock) { sb.Name = name })
			}
		}, check.SuperblockDiffers + " " + check.SuperblockDiffers, check.RepairRefused},
		{"copies in each other's places", func(t *testing.T, f *fixture) {
			a, b := readPage(t, f.disk, f.copyOffset(0)), readPage(t, f.disk, f.copyOffset(1))
			write(t, f.disk, a, f.copyOffset(1))
			write(t, f.disk, b, f.copyOffset(0))
		}, "", ""},
		{"the only copy is in another's place", func(t *testing.T, f *fixture) {
			write(t, f.disk, readPage(t, f.disk, f.copyOffset(1)), f.copyOffset(0))
			write(t, f.disk, make([]byte, page), f.copyOffset(1))
			write(t, f.disk, make([]byte, page), f.copyOffset(2))
		}, check.SuperblockMisplaced, check.SuperblockMissing + " " + check.SuperblockMissing + " " + check.RepairRefused},
		{"copies disagree about the drive", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) {
				e := sb.Drives[0]
				e.Slot, e.UUID = 1, uuid.UUID{1}
				sb.Drives = append(sb.Drives, e)
			})
			f.putSuperblock(t, 1, func(sb *omf.Superblock) { sb.Slot, sb.Drive = 1, uuid.UUID{1} })
			write(t, f.disk, make([]byte, page), f.copyOffset(2))
		}, check.SuperblockMisplaced + " " + check.DeviceMissing, check.SuperblockMissing + " " + check.RepairRefused},
		{"a compatible feature", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Compat = 1 })
			flipped(f, 1)
		}, check.SuperblockDamaged, check.RepairRefused},
		{"the metadata logs lie elsewhere", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Logs[0].Start += 64; sb.Logs[1].Start += 64 })
			flipped(f, 2)
		}, check.LogNoTail + " " + check.LogNoTail, check.SuperblockDamaged + " " + check.RepairRefused},
		{"a newer format in the first copy", func(t *testing.T, f *fixture) {
			flipped(f, 2)
			f.putSuperblock(t, 0, func(sb *omf.Superblock) { sb.Generation++; sb.Incompat = 1 })
		}, check.SuperblockVersion, check.SuperblockDamaged + " " + check.RepairRefused},
		{"tails of the unused metadata log gone, the other not closed", func(t *testing.T, f *fixture) {
			p, err := mpool.Activate(bg, "pool", []string{"x"}, api.ActivateOptions{}, options(f.disk))
			do(t, err)
			put(t, p, 1)
			cut := f.disk.Clone()
			do(t, p.Close())
			f.disk = cut
			for _, i := range []int64{0, 1, 2, 3} {
				flip(f.disk, f.metaOffset(t, 1)+i*page+200)
			}
		}, check.LogNoTail, ""},
		{"log copy and superblock", func(t *testing.T, f *fixture) {
			f.cutOff(t, f.log)
			flip(f.disk, f.at(t, f.log, f.newest(t, f.log))+90)
			flipped(f, 1)
		}, "", ""},
		{"log copy, but the metadata is not sound", func(t *testing.T, f *fixture) {
			f.cutOff(t, f.log)
			flip(f.disk, f.at(t, f.log, f.newest(t, f.log))+90)
			f.raw(t, []byte{7})
		}, check.RecordMalformed, check.LogCopy + " " + check.RepairRefused},
		{"log copy and superblock, but the metadata is not sound", func(t *testing.T, f *fixture) {
			f.cutOff(t, f.log)
			flip(f.disk, f.at(t, f.log, f.newest(t, f.log))+90)
			f.raw(t, []byte{7})
			flipped(f, 1)
		}, check.RecordMalformed, check.LogCopy + " " + check.RepairRefused},
		{"copy of the metadata's last page gone", func(t *testing.T, f *fixture) {
			flip(f.disk, f.metaOffset(t, 0)+f.newestAt(t, f.metaOffset(t, 0), f.superblock(t).Logs[0].Birth)*page+90)
		}, "", ""},
		{"copy of a log's first page gone", func(t *testing.T, f *fixture) {
			flip(f.disk, f.at(t, f.fresh, 0)+90)
		}, "", ""},
		{"the replaced metadata log has one pair of tails, which is broken", func(t *testing.T, f *fixture) {
			f.compact(t, f.records(t)...)
			base := f.metaOffset(t, 0)
			pair := f.newestAt(t, base, f.superblock(t).Logs[0].Birth) &^ 1
			for i := range int64(4) {
				if i&^1 != pair {
					write(t, f.disk, make([]byte, page), base+i*page)
					continue
				}
				f.changePage(t, base+i*page, func(b []byte) { le.PutUint32(b[56:], 1); le.PutUint32(b[60:], 7) })
			}
		}, "", ""},
		{"container: the replaced log without tail", func(t *testing.T, f *fixture) {
			for i := range int64(4) {
				flip(f.disk, f.at(t, f.container, i)+90)
			}
		}, "", ""},
		{"container: the replaced log unreadable", func(t *testing.T, f *fixture) {
			for i := range int64(6) {
				f.disk.SetUnreadable(f.at(t, f.container, i), page)
			}
		}, "", ""},
	}
}

// Each way to break a pool: what a repair mends, and what it leaves.
//
// proves S2 S45
func TestRepairBroken(t *testing.T) {
	if raced {
		t.Skip("what runs side by side in it is raced by TestBroken and TestAgreement")
	}
	plain := newFixture(t)
	good := *plain
	good.disk = plain.disk.Clone()
	use(t, good.disk, func(p *mpool.Pool) {
		for range 70 {
			put(t, p, 1)
		}
	})
	var out strings.Builder
	for _, group := range []struct {
		name   string
		list   []breakage
		mended bool // some are
	}{
		{"superblock", superblockBreakages(), true},
		{"log", logBreakages(), true},
		{"record", recordBreakages(), false},
		{"object", objectBreakages(), false},
		{"data", dataBreakages(), false},
		{"repair", repairBreakages(), true},
	} {
		for _, b := range group.list {
			t.Run(group.name+"/"+b.name, func(t *testing.T) {
				f := good
				if strings.HasPrefix(b.name, small) {
					f = *plain
				}
				f.disk = f.disk.Clone()
				b.do(t, &f)
				var r check.Report
				if group.mended {
					r, _ = tryRepair(t, f.disk)
				} else if r, _ = repair(t, f.disk); slices.ContainsFunc(r.Problems, func(p check.Problem) bool { return p.Repaired }) {
					t.Errorf("what has no redundancy was mended: %v", r.Problems)
				}
				if got := codes(left(r.Problems)); group.name == "repair" && got != b.problems {
					t.Errorf("problems left %q, want %q: %v", got, b.problems, r.Problems)
				}
				if got := codes(left(r.Notes)); group.name == "repair" && got != b.notes {
					t.Errorf("notes left %q, want %q: %v", got, b.notes, r.Notes)
				}
				fmt.Fprintf(&out, "%s: %s\n", group.name, b.name)
				tell(&out, "", r.Problems)
				tell(&out, "note ", r.Notes)
			})
		}
	}
	golden(t, "repair.golden", plainText(out.String()))
}

// tell writes findings, a repaired one by its code alone.
func tell(out *strings.Builder, what string, list []check.Problem) {
	for i, p := range list {
		switch {
		case p.Repaired:
			fmt.Fprintf(out, "  repaired %s%s at %d\n", what, p.Code, p.Offset)
		case p.Code == check.RepairRefused:
			fmt.Fprintf(out, "  %s%v\n", what, p)
		case i < 5:
			fmt.Fprintf(out, "  left %s%s at %d\n", what, p.Code, p.Offset)
		}
	}
}

// Who does not confirm changes nothing.
func TestRepairNotConfirmed(t *testing.T) {
	f := newFixture(t)
	flip(f.disk, f.copyOffset(1)+9)
	was := f.disk.Clone()
	var list []written
	no := errors.New("no")
	r, err := check.Repair(bg, []string{"d0"}, check.Options{
		OpenTarget: targets(devsim.OpenOptions{}, &list, f.disk),
		Confirm:    func([]check.Problem) error { return no },
	})
	if !errors.Is(err, no) || codes(r.Problems) != check.SuperblockDamaged || r.Problems[0].Repaired {
		t.Fatal(err, r.Problems)
	}
	onlyThere(t, []*devsim.Disk{was}, []*devsim.Disk{f.disk}, list)
	if len(list) > 0 {
		t.Fatal(list)
	}
}

// A drive that takes no writes keeps its problems, and the repair says why; what
// is behind the first write that fails is not tried.
//
// proves S40
func TestRepairFailedWrites(t *testing.T) {
	for _, fault := range []devsim.Fault{
		{Code: bdev.OpWrite, Err: syscall.EIO, Count: 1},
		{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1},
	} {
		f := newFixture(t)
		for i := range 2 {
			write(t, f.disk, make([]byte, page), f.copyOffset(i))
		}
		f.disk.Inject(fault)
		r, list := repair(t, f.disk)
		if len(list) != 1 || len(left(r.Problems)) == 0 || r.OK {
			t.Fatalf("%v: %v; %v; %v", fault.Code, list, r.Problems, r.Notes)
		}
		for _, p := range left(r.Problems) {
			if !strings.Contains(p.Text, "could not be written anew") {
				t.Errorf("%v", p)
			}
		}
		f.disk.Heal()
		if r, _ := repair(t, f.disk); !r.OK || len(left(r.Notes)) > 0 {
			t.Fatal(r.Problems, r.Notes)
		}
	}
}
