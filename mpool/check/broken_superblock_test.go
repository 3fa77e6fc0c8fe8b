package check_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

func superblockBreakages() []breakage {
	noise := func(i int) func(*testing.T, *fixture) {
		return func(_ *testing.T, f *fixture) { flip(f.disk, f.copyOffset(i)+100) }
	}
	wipe := func(i int) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { write(t, f.disk, make([]byte, page), f.copyOffset(i)) }
	}
	older := func(list ...int) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			for _, i := range list {
				f.putSuperblock(t, i, func(sb *omf.Superblock) { sb.Generation-- })
			}
		}
	}
	both := func(list ...func(*testing.T, *fixture)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			for _, g := range list {
				g(t, f)
			}
		}
	}
	return []breakage{
		{"first copy flipped", noise(0), "", check.SuperblockDamaged},
		{"second copy flipped", noise(1), check.SuperblockDamaged, ""},
		{"last copy flipped", noise(2), "", check.SuperblockDamaged},
		{"first copy wiped", wipe(0), check.SuperblockMissing, ""},
		{"second copy wiped", wipe(1), check.SuperblockMissing, ""},
		{"last copy wiped", wipe(2), "", check.SuperblockMissing},
		{"all copies wiped", both(wipe(0), wipe(1), wipe(2)), check.SuperblockNone, ""},
		{
			"all copies flipped", both(noise(0), noise(1), noise(2)),
			strings.Repeat(check.SuperblockDamaged+" ", 3) + check.SuperblockNone, "",
		},
		{"last copy older", older(2), "", check.SuperblockOlder},
		{"two copies older", older(1, 2), "", check.SuperblockOlder + " " + check.SuperblockOlder},
		{"second copy older than the last", older(1), check.SuperblockOlder, ""},
		{"first copy torn when the second was", both(noise(0), noise(1), older(2)), "", check.SuperblockDamaged + " " + check.SuperblockDamaged},
		{"second copy unreadable", func(_ *testing.T, f *fixture) {
			f.disk.SetUnreadable(f.copyOffset(1), page)
		}, check.SuperblockDamaged, ""},
		{"last copy of another name", func(t *testing.T, f *fixture) {
			f.putSuperblock(t, 2, func(sb *omf.Superblock) { sb.Name = "other" })
		}, check.SuperblockDiffers, ""},
		{"second copy of another pool", func(t *testing.T, f *fixture) {
			f.putSuperblock(t, 1, func(sb *omf.Superblock) { sb.Pool[3] ^= 1 })
		}, check.SuperblockForeign, ""},
		{"second copy in the place of the last", func(t *testing.T, f *fixture) {
			write(t, f.disk, readPage(t, f.disk, f.copyOffset(1)), f.copyOffset(2))
		}, check.SuperblockMisplaced, ""},
		{"second copy of a later version", func(t *testing.T, f *fixture) {
			b := readPage(t, f.disk, f.copyOffset(1))
			b[8] = 2
			sealSuperblock(b)
			write(t, f.disk, b, f.copyOffset(1))
		}, check.SuperblockVersion, ""},
		{"last copy with a feature unknown", func(t *testing.T, f *fixture) {
			f.putSuperblock(t, 2, func(sb *omf.Superblock) { sb.Incompat = 4 })
		}, check.SuperblockVersion, ""},
		{"features that can only be read", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.ROCompat = 2 })
		}, "", check.SuperblockFeatures},
		{"destroyed", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.State = omf.StateDestroyed })
			wipe(0)(t, f)
		}, "", check.SuperblockMissing + " " + check.PoolDestroyed},
		{"device cut off", func(t *testing.T, f *fixture) {
			d := devsim.NewDisk(diskSize-8<<20, devsim.DiskOptions{})
			for off := int64(0); off < d.Size(); off += page {
				write(t, d, readPage(t, f.disk, off), off)
			}
			f.disk = d
		}, check.DeviceSmall, check.SuperblockDamaged},
		{"metadata logs over each other", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Logs[1].Start = sb.Logs[0].Start + 3 })
		}, check.Geometry, ""},
		{"metadata log over the superblock", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Logs[1].Start = 250 })
		}, check.Geometry, ""},
		{"metadata logs of the same birth", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Logs[1].Birth = sb.Logs[0].Birth })
		}, check.Geometry, ""},
		{"zones larger than the drive", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Drives[0].ZoneLog2 = 26 })
		}, check.Geometry, ""},
		{"a drive that is not there", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) {
				e := sb.Drives[0]
				e.Slot, e.UUID = 1, uuid.UUID{1}
				sb.Drives = append(sb.Drives, e)
			})
		}, check.DeviceMissing, ""},
		{"metadata on a drive that is not there", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) {
				e := sb.Drives[0]
				e.Slot, e.UUID = 1, uuid.UUID{1}
				sb.Drives, sb.MetaSlot = append(sb.Drives, e), 1
			})
		}, check.DeviceMissing + " " + check.MetadataMissing, ""},
		{"activation that the superblock does not know", func(t *testing.T, f *fixture) {
			f.putSuperblocks(t, func(sb *omf.Superblock) { sb.Epoch = 2 })
		}, check.LogEpoch, ""},
	}
}
