// Package loopdev makes loop devices for tests: real block devices over files,
// with direct I/O below and the sector size that a test wants. It needs root.
//
//	dev := loopdev.New(t, 64<<20, loopdev.Options{SectorSize: 4096})
//	drive, err := bdev.Open(ctx, nil, dev.Path, bdev.OpenOptions{})
//
// A device is detached and its file removed when its test ends. AUTOCLEAR sees
// to the former also when the test binary is killed: the kernel detaches when
// the last descriptor is closed.
package loopdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options are how a device is made. The zero value is a device of 512-byte
// sectors over a file in the test's temporary directory.
type Options struct {
	SectorSize int    // bytes: 512 or 4096; 0: 512
	Dir        string // where the backing file is made; "": the test's own
	Backing    string // an existing file to use instead; it is not removed
	ReadOnly   bool
	Buffered   bool // go through the page cache below, also where direct I/O is possible
}

// Device is a loop device.
type Device struct {
	Path    string // /dev/loopN
	Backing string // the file under it
	file    *os.File
}

// patience is how long a busy kernel is tried again.
const patience = 3 * time.Minute

// RequireRoot skips the test when it does not run as root. As root nothing is
// skipped: a device that cannot be made fails the test.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root, for loop devices")
	}
}

// New makes a device of size bytes for the life of a test.
func New(tb testing.TB, size int64, o Options) *Device {
	tb.Helper()
	RequireRoot(tb)
	d := &Device{Backing: o.Backing}
	if d.Backing == "" {
		dir := o.Dir
		if dir == "" {
			dir = tb.TempDir()
		}
		d.Backing = makeFile(tb, dir, size)
	}
	if err := d.attach(o); err != nil {
		tb.Fatalf("make a loop device over %s: %v", d.Backing, err)
	}
	tb.Cleanup(func() { d.Detach(tb) })
	return d
}

func makeFile(tb testing.TB, dir string, size int64) string {
	tb.Helper()
	f, err := os.CreateTemp(dir, "loopdev-*")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.Remove(f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
			tb.Error(err)
		}
	})
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		tb.Fatal(err)
	}
	return f.Name()
}

// attach asks for a free device and takes it. Another process may take the
// same one first: then it asks again.
func (d *Device) attach(o Options) error {
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	backing, err := os.OpenFile(d.Backing, flags, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := d.attachOnce(int(control.Fd()), int(backing.Fd()), o)
		if err == nil || !isBusy(err) || time.Now().After(end) {
			return err
		}
	}
}

func isBusy(err error) bool {
	// ENXIO and ENOENT: the device was taken away between two steps.
	for _, e := range []error{unix.EBUSY, unix.EAGAIN, unix.EINTR, unix.ENXIO, unix.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (d *Device) attachOnce(control, backing int, o Options) error {
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("ask for a free loop device: %w", err)
	}
	d.Path = fmt.Sprintf("/dev/loop%d", n)
	if err := makeNode(d.Path, n); err != nil {
		return err
	}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	c := unix.LoopConfig{Fd: uint32(backing), Size: uint32(max(o.SectorSize, 512))}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if !o.Buffered {
		c.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	if o.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], filepath.Base(d.Backing))
	if err := unix.IoctlLoopConfigure(int(f.Fd()), &c); err != nil {
		return errors.Join(fmt.Errorf("configure %s: %w", d.Path, err), f.Close())
	}
	d.file = f
	return nil
}

// makeNode makes the device's node where nothing else does (no udev, no
// devtmpfs).
func makeNode(path string, n int) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

// Detach takes the device away before its test ends. Whoever still has it open
// keeps it until he closes it; then Detach fails the test.
func (d *Device) Detach(tb testing.TB) {
	tb.Helper()
	if d.file == nil {
		return
	}
	name := filepath.Join("/sys/block", filepath.Base(d.Path), "loop/backing_file")
	mine, err := os.ReadFile(name)
	if err != nil {
		tb.Errorf("detach %s: %v", d.Path, err)
	}
	if err := d.file.Close(); err != nil {
		tb.Error(err)
	}
	d.file = nil
	// The kernel clears when the last user is gone. Another test may get the
	// same number at once: that has another backing file.
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		now, err := os.ReadFile(name)
		if err != nil || string(now) != string(mine) {
			return
		}
		if time.Now().After(end) {
			tb.Errorf("detach %s: somebody still has it open", d.Path)
			return
		}
	}
}
