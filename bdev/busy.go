package bdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// BusyError says who has a device that Open was refused. It wraps ErrBusy.
type BusyError struct {
	Holder    string // "mounted at /x", "used as swap", "used by another process" ...
	Permanent bool   // the holder does not go away by itself
}

func (e *BusyError) Error() string { return ErrBusy.Error() + ": " + e.Holder }

// Unwrap returns ErrBusy.
func (e *BusyError) Unwrap() error { return ErrBusy }

// whoHolds finds out why a block device cannot be opened exclusively. A claim
// of a partition excludes one of the whole disk, and the other way round.
func whoHolds(path string, rdev uint64) *BusyError {
	devs := relatives(rdev)
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		if at := mountOf(string(b), devs); at != "" {
			return &BusyError{Holder: "mounted at " + at, Permanent: true}
		}
	}
	if b, err := os.ReadFile("/proc/swaps"); err == nil {
		if swapUses(string(b), devs) {
			return &BusyError{Holder: "used as swap", Permanent: true}
		}
	}
	for _, dir := range append([]string{sysfsBlock(rdev)}, partitions(sysfsBlock(rdev))...) {
		holders, err := os.ReadDir(filepath.Join(dir, "holders"))
		if err == nil && len(holders) > 0 {
			return &BusyError{Holder: "part of /dev/" + holders[0].Name(), Permanent: true}
		}
	}
	return &BusyError{Holder: "used by another process (see fuser " + path + ")"}
}

// partitions returns the sysfs directories of a disk's partitions.
func partitions(disk string) []string {
	found, err := filepath.Glob(filepath.Join(disk, "*", "partition"))
	if err != nil {
		return nil
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}

// relatives returns the numbers, "major:minor", of a device, its partitions,
// and the disk it is a partition of.
func relatives(rdev uint64) []string {
	devs := []string{fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))}
	dir := sysfsBlock(rdev)
	for _, p := range append(partitions(dir), sysfsDisk(rdev)) {
		if s := sysfsString(p, "dev"); s != "" && s != devs[0] {
			devs = append(devs, s)
		}
	}
	return devs
}

// mountOf returns where one of the devices is mounted, by the text of a
// mountinfo file, or "". The fields: mount id, parent id, major:minor, root,
// mount point, options, optional fields, "-", type, source, super options. The
// number is not the device's for file systems over several devices, the source
// is.
func mountOf(mountinfo string, devs []string) string {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		uses := slices.Contains(devs, f[2])
		for i := 6; i+2 < len(f) && !uses; i++ {
			if f[i] == "-" {
				uses = slices.Contains(devs, deviceNumber(unescape(f[i+2])))
				break
			}
		}
		if uses {
			return unescape(f[4])
		}
	}
	return ""
}

// swapUses says whether one of the devices is swapped to, by the text of
// /proc/swaps.
func swapUses(swaps string, devs []string) bool {
	for line := range strings.Lines(swaps) {
		f := strings.Fields(line)
		if len(f) > 1 && f[1] == "partition" && slices.Contains(devs, deviceNumber(unescape(f[0]))) {
			return true
		}
	}
	return false
}

// deviceNumber returns a block device's "major:minor", or "".
func deviceNumber(path string) string {
	var st unix.Stat_t
	if !strings.HasPrefix(path, "/") || unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// unescape undoes the octal escapes of /proc files (\040 for a space).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// claim takes what opening did not: a file's lock, a loop device's backing
// file; and refuses what is under a loop device.
func (d *device) claim(st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := flock(d.fd); err != nil {
			return lockError(err, "used by another process, which has its lock")
		}
	}
	if err := refuseLoopOver(st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return d.claimBacking(st.Rdev)
	}
	return nil
}

func lockError(err error, holder string) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &BusyError{Holder: holder}
	}
	return fmt.Errorf("lock: %w", err)
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
