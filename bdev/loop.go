package bdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// deletedSuffix ends the name of a backing file that was unlinked.
const deletedSuffix = " (deleted)"

// loopBacking is what a loop device lies over.
type loopBacking struct {
	path      string // as sysfs has it: in the mount namespace of who made it
	known     bool   // the following are
	dev, ino  uint64 // of a regular file: its stat
	rdev      uint64 // of a block device
	autoclear bool   // the loop device goes when its last user does
}

// backingOf returns what the loop device of a sysfs directory lies over. ok is
// false when it lies over nothing.
func backingOf(dir string) (b loopBacking, ok bool) {
	path := sysfsString(dir, "loop/backing_file")
	if path == "" {
		return b, false
	}
	b.path = path
	b.autoclear = sysfsString(dir, "loop/autoclear") == "1"
	// The device itself knows best, but not everybody may ask it.
	if fd, err := open("/dev/"+filepath.Base(dir), unix.O_RDONLY|unix.O_CLOEXEC); err == nil {
		info, err := unix.IoctlLoopGetStatus64(fd)
		_ = unix.Close(fd)
		if err == nil {
			b.known, b.dev, b.ino, b.rdev = true, info.Device, info.Inode, info.Rdevice
			return b, true
		}
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		b.known, b.dev, b.ino, b.rdev = true, st.Dev, st.Ino, st.Rdev
	}
	return b, true
}

// is says whether the loop device lies over the file or block device of st.
func (b *loopBacking) is(st *unix.Stat_t) bool {
	if !b.known {
		return false
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return b.rdev == st.Rdev
	}
	return b.dev == st.Dev && b.ino == st.Ino
}

// refuseLoopOver returns a BusyError if a loop device lies over the file or
// block device of st.
func refuseLoopOver(st *unix.Stat_t) error {
	dirs, err := filepath.Glob("/sys/block/loop*")
	if err != nil {
		return fmt.Errorf("look for loop devices: %w", err)
	}
	for _, dir := range dirs {
		if b, ok := backingOf(dir); ok && b.is(st) {
			return &BusyError{Holder: "backing file of /dev/" + filepath.Base(dir), Permanent: !b.autoclear}
		}
	}
	return nil
}

// claimBacking claims what a loop device lies over: the lock of a file, a
// block device for itself. So the two are never open as drives at one time.
func (d *device) claimBacking(rdev uint64) error {
	b, ok := backingOf(sysfsDisk(rdev))
	if !ok {
		return nil // not a loop device
	}
	fd, err := openBacking(&b)
	if err != nil {
		return err
	}
	d.locks = append(d.locks, fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat %s: %w", b.path, err)
	}
	if !b.is(&st) {
		return fmt.Errorf("its backing file %s is not the one it was made over, so whether that is in use cannot be seen: %w",
			b.path, ErrBusy)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return nil
	}
	if err := flock(fd); err != nil {
		return lockError(err, "its backing file "+b.path+" is used by another process, which has its lock")
	}
	return nil
}

// openBacking opens what a loop device lies over.
func openBacking(b *loopBacking) (int, error) {
	path := strings.TrimSuffix(b.path, deletedSuffix)
	info, err := os.Stat(path)
	if err == nil {
		flags := unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK
		if info.Mode()&os.ModeDevice != 0 {
			flags |= unix.O_EXCL
		}
		var fd int
		if fd, err = open(path, flags); err == nil {
			return fd, nil
		}
	}
	if errors.Is(err, unix.EBUSY) {
		return -1, &BusyError{Holder: "its backing device " + path + " is in use"}
	}
	return -1, fmt.Errorf("whether its backing file %s is in use cannot be seen: %w: %w", b.path, ErrBusy, err)
}
