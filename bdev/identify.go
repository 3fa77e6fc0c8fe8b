package bdev

import "golang.org/x/sys/unix"

// DeviceID names a block device or file on this host while it is there. Two
// paths with one DeviceID are the same device; two paths that the kernel cannot
// relate (a disk seen by two cables) have different ones.
type DeviceID struct {
	block    bool
	dev, ino uint64 // of a block device its number, and 0
}

// Identify returns a path's DeviceID. ok is false when the path names neither a
// block device nor a regular file.
func Identify(path string) (id DeviceID, ok bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return id, false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return DeviceID{block: true, dev: st.Rdev}, true
	case unix.S_IFREG:
		return DeviceID{dev: st.Dev, ino: st.Ino}, true
	}
	return id, false
}
