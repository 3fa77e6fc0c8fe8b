package bdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	smallSector = 512
	largeSector = 4096
)

// measureFile finds out the geometry of a regular file.
func (d *device) measureFile(st *unix.Stat_t) error {
	g := &d.geo
	g.Regular = true
	g.LogicalSector = largeSector
	var x unix.Statx_t
	if err := unix.Statx(d.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &x); err == nil && x.Mask&unix.STATX_DIOALIGN != 0 {
		switch unit := max(x.Dio_offset_align, x.Dio_mem_align); {
		case unit == 0 || unit > largeSector:
			return fmt.Errorf("%w: its unit is %d bytes", ErrNoDirect, unit)
		case unit <= smallSector:
			g.LogicalSector = smallSector
		}
	}
	// What is below the file system is unknown: take the worst.
	g.PhysicalSector = largeSector
	g.Size = st.Size &^ int64(g.LogicalSector-1)
	g.WriteCache = true
	// A hole beyond the end changes nothing, but tells whether one can be made.
	if !g.ReadOnly && unix.Fallocate(d.fd, punchHole, g.Size+largeSector, largeSector) == nil {
		g.Discard, g.DiscardUnit = true, largeSector
	}
	return nil
}

// measureBlock finds out the geometry of a block device.
func (d *device) measureBlock(rdev uint64) error {
	g := &d.geo
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return fmt.Errorf("ask for the size: %w", errno)
	}
	logical, err := unix.IoctlGetInt(d.fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("ask for the logical sector size: %w", err)
	}
	// The kernel writes 32 bits there, too.
	physical, err := unix.IoctlGetUint32(d.fd, unix.BLKPBSZGET)
	if err != nil {
		return fmt.Errorf("ask for the physical sector size: %w", err)
	}
	if logical != smallSector && logical != largeSector {
		return fmt.Errorf("logical sectors of %d bytes are not supported, only %d and %d: %w",
			logical, smallSector, largeSector, unix.ENOTSUP)
	}
	g.LogicalSector, g.PhysicalSector = logical, max(logical, int(physical))
	g.Size = int64(size) &^ int64(logical-1)
	queue := sysfsQueue(rdev)
	if sysfsInt(queue, "discard_max_bytes") > 0 {
		g.Discard = true
		g.DiscardUnit = max(sysfsInt(queue, "discard_granularity"), int64(logical))
	}
	// A device that tells nothing is taken to have a cache.
	g.WriteCache = sysfsString(queue, "write_cache") != "write through"
	g.FUA = sysfsInt(queue, "fua") > 0
	return nil
}

// suits says whether io_uring suits the device better than pread and pwrite. On
// a FUSE file whose file system is not asynchronous, the kernel goes on with a
// write that was done in part at a wrong place; so it is never used on one unless
// asked for. On what it punts it is slower by far than to wait.
func (d *device) suits() bool { return !d.noRing && !d.punts }

// isFUSE says whether the device is a file of a FUSE file system.
func (d *device) isFUSE() bool {
	var fs unix.Statfs_t
	return d.geo.Regular && unix.Fstatfs(d.fd, &fs) == nil && fs.Type == unix.FUSE_SUPER_MAGIC
}

// waits says whether reads and writes cannot be begun without waiting. It asks
// by a read behind the end, which does no I/O.
func (d *device) waits() bool {
	buf := AllocBuffer(BufferAlign)
	defer FreeBuffer(buf)
	end := (d.geo.Size + BufferAlign) &^ (BufferAlign - 1)
	_, err := unix.Preadv2(d.fd, [][]byte{buf}, end, unix.RWF_NOWAIT)
	return errors.Is(err, unix.EOPNOTSUPP)
}

// sysfsBlock returns the directory of a block device in sysfs: /sys/dev/block/M:m
// resolved.
func sysfsBlock(rdev uint64) string {
	dir := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		return resolved
	}
	return dir
}

// sysfsDisk returns the directory of the whole disk that a device is, or is a
// partition of.
func sysfsDisk(rdev uint64) string {
	dir := sysfsBlock(rdev)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return filepath.Dir(dir)
	}
	return dir
}

func sysfsQueue(rdev uint64) string { return filepath.Join(sysfsDisk(rdev), "queue") }

// sysfsString returns an attribute, or "" when there is none.
func sysfsString(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// sysfsInt returns a numeric attribute, or 0 when there is none.
func sysfsInt(dir, name string) int64 {
	n, err := strconv.ParseInt(sysfsString(dir, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
