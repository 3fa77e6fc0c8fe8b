package faultfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/loopdev"
)

// mount is a mounted file system.
type mount struct {
	dir     string
	server  *fuse.Server
	janitor *exec.Cmd
}

// patience is how long an unmount is tried again while the file is in use.
const patience = 3 * time.Minute

// New makes a drive of size bytes, a multiple of 4096, for the life of a test.
// It skips the test when it does not run as root.
func New(tb testing.TB, size int64, o Options) *Drive {
	tb.Helper()
	loopdev.RequireRoot(tb)
	d, err := newDrive(size, o)
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "faultfs-")
	if err != nil {
		tb.Fatal(err)
	}
	m := &mount{dir: dir}
	if err := errors.Join(m.watch(), m.serve(d)); err != nil {
		tb.Fatal(errors.Join(err, m.end()))
	}
	d.mount, d.Path = m, filepath.Join(dir, fileName)
	tb.Cleanup(func() { d.remove(tb) })
	return d
}

// serve mounts the file system.
func (m *mount) serve(d *Drive) (err error) {
	m.server, err = fuse.NewServer(&files{RawFileSystem: fuse.NewDefaultRawFileSystem(), d: d}, m.dir, &fuse.MountOptions{
		DirectMountStrict: true, FsName: "faultfs", Name: "faultfs", DisableXAttrs: true,
		MaxBackground: 1024, MaxWrite: 512 << 10, DisableReadDirPlus: true, DisableSplice: true,
		ExtraCapabilities: fuse.CAP_ASYNC_DIO, // else whoever begins an operation waits for it, also through a ring
	})
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.dir, err)
	}
	go m.server.Serve()
	return m.server.WaitMount()
}

// sweep waits for the end of a process and unmounts. It looks for a zombie: a
// process that was killed while one of its own operations hangs in the file
// system does not close its descriptors, and so does not end, before somebody
// ends the operation, which a forced unmount does.
const sweep = `while read -r _ _ state _ <"/proc/$1/stat" && [ "$state" != Z ]; do sleep 0.2; done
umount -f -l "$2"
rmdir "$2"`

// watch starts the process that unmounts the file system if this one is killed.
func (m *mount) watch() error {
	m.janitor = exec.Command("/bin/sh", "-c", sweep, "faultfs", strconv.Itoa(os.Getpid()), m.dir)
	m.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not killed with our process group
	return m.janitor.Start()
}

// Abort ends the file system's connection: every operation fails from now on.
func (d *Drive) Abort(tb testing.TB) {
	tb.Helper()
	if err := d.mount.detach(); err != nil {
		tb.Error(err)
	}
}

// detach takes the file system away, whoever uses it.
func (m *mount) detach() error {
	err := unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: not mounted any more
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	return nil
}

// remove unmounts the drive. Who still has it open fails the test.
func (d *Drive) remove(tb testing.TB) {
	tb.Helper()
	d.ReleaseAll()
	m := d.mount
	err := unix.Unmount(m.dir, 0)
	for end := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond) // the kernel closes loop devices and files of dead processes when it likes
		err = unix.Unmount(m.dir, 0)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) {
		tb.Errorf("unmount %s, which somebody still uses: %v", m.dir, err)
	}
	if err := m.end(); err != nil {
		tb.Error(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.drive.Close(); err != nil {
		tb.Error(err)
	}
}

// end takes away what is left and checks that nothing is.
func (m *mount) end() error {
	err := m.detach()
	if m.server != nil {
		m.server.Wait()
	}
	if m.janitor.Process != nil {
		err = errors.Join(err, m.janitor.Process.Kill())
		_ = m.janitor.Wait() //nolint:errcheck // "signal: killed" is what is wanted
	}
	if rerr := os.Remove(m.dir); !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	mounts, rerr := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), m.dir+" ") {
		err = errors.Join(err, fmt.Errorf("%s is still mounted", m.dir))
	}
	return errors.Join(err, rerr)
}
