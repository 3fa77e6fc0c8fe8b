package bdev_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/test/loopdev"
)

// refused opens a device that is busy and checks what the error says.
func refused(t *testing.T, path, holder string, o bdev.OpenOptions) {
	t.Helper()
	d, err := bdev.Open(context.Background(), nil, path, o)
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, bdev.ErrBusy) || !strings.Contains(err.Error(), holder) {
		t.Errorf("open %s: %v; want one that says %q", path, err, holder)
	}
}

func closeDrive(tb testing.TB, d *bdev.Drive) {
	tb.Helper()
	if err := d.Close(); err != nil {
		tb.Error(err)
	}
}

var atOnce = bdev.OpenOptions{BusyRetry: -1}

// A drive is open once, whatever kind of file it is.
//
// proves S4
func TestOpenIsExclusive(t *testing.T) {
	for _, p := range places {
		for _, kind := range engines {
			t.Run(p.name+"/"+kind.String(), func(t *testing.T) {
				path := p.make(t)
				for range 3 { // a close frees it
					d := open(t, path, bdev.OpenOptions{Engine: kind})
					refused(t, path, "used by another process", atOnce)
					refused(t, path, "used by another process", bdev.OpenOptions{ReadOnly: true, BusyRetry: -1})
					shared := open(t, path, bdev.OpenOptions{ReadOnly: true, Shared: true})
					closeDrive(t, shared)
					closeDrive(t, d)
				}
			})
		}
	}
}

// A file and the loop device over it are one drive.
//
// proves S4
func TestOpenSeesLoopDevices(t *testing.T) {
	t.Run("file under a loop device", func(t *testing.T) {
		dev := loopdev.New(t, testSize, loopdev.Options{})
		refused(t, dev.Backing, "backing file of "+dev.Path, atOnce)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Link(dev.Backing, link); err != nil {
			t.Fatal(err)
		}
		refused(t, link, "backing file of "+dev.Path, atOnce)
		dev.Detach(t)
		closeDrive(t, open(t, link, bdev.OpenOptions{}))
	})
	t.Run("loop device over an open file", func(t *testing.T) {
		loopdev.RequireRoot(t)
		path := makeFile(t, t.TempDir(), testSize)
		d := open(t, path, bdev.OpenOptions{})
		dev := loopdev.New(t, testSize, loopdev.Options{Backing: path})
		refused(t, dev.Path, "its backing file "+path, atOnce)
		closeDrive(t, d)
		closeDrive(t, open(t, dev.Path, bdev.OpenOptions{}))
	})
	t.Run("two loop devices over one file", func(t *testing.T) {
		a := loopdev.New(t, testSize, loopdev.Options{})
		b := loopdev.New(t, testSize, loopdev.Options{Backing: a.Backing})
		d := open(t, a.Path, bdev.OpenOptions{})
		refused(t, b.Path, "its backing file", atOnce)
		closeDrive(t, d)
		closeDrive(t, open(t, b.Path, bdev.OpenOptions{}))
	})
	t.Run("loop device over a loop device", func(t *testing.T) {
		below := loopdev.New(t, testSize, loopdev.Options{})
		above := loopdev.New(t, testSize, loopdev.Options{Backing: below.Path})
		refused(t, below.Path, "backing file of "+above.Path, atOnce)
		d := open(t, above.Path, bdev.OpenOptions{})
		refused(t, below.Path, "", atOnce)
		closeDrive(t, d)
	})
	t.Run("backing file out of sight", func(t *testing.T) {
		path := makeFile(t, t.TempDir(), testSize)
		dev := loopdev.New(t, testSize, loopdev.Options{Backing: path})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		refused(t, dev.Path, "cannot be seen", atOnce)
		// Another file in its place is not it.
		makeFile(t, filepath.Dir(path), testSize)
		refused(t, dev.Path, "", atOnce)
	})
}

// A mount is said, and not waited for.
func TestOpenSaysWhereItIsMounted(t *testing.T) {
	loopdev.RequireRoot(t)
	path, at := mountLoop(t)
	start := time.Now()
	refused(t, path, "mounted at "+at, bdev.OpenOptions{BusyRetry: time.Hour})
	if d := time.Since(start); d > 5*time.Minute {
		t.Errorf("open waited %v for a mount to go away", d)
	}
}

// mountLoop mounts an ext4 over a loop device in a directory with a space in
// its name, and returns both.
func mountLoop(t *testing.T) (dev, at string) {
	t.Helper()
	d := loopdev.New(t, 32<<20, loopdev.Options{})
	if out, err := exec.Command("mkfs.ext4", "-q", "-O", "^has_journal", d.Path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	at = filepath.Join(t.TempDir(), "a mount")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(d.Path, at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// EINVAL: the test did it.
		if err := unix.Unmount(at, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	return d.Path, at
}

// A busy drive is tried again until its holder is gone, or time is up.
//
// proves S4
func TestOpenWaitsForABusyDrive(t *testing.T) {
	path := makeFile(t, t.TempDir(), testSize)
	d := open(t, path, bdev.OpenOptions{})
	timer := time.AfterFunc(200*time.Millisecond, func() { closeDrive(t, d) })
	defer timer.Stop()
	d2, err := bdev.Open(context.Background(), nil, path, bdev.OpenOptions{BusyRetry: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	refused(t, path, "used by another process", bdev.OpenOptions{BusyRetry: 120 * time.Millisecond})
	if d := time.Since(start); d < 60*time.Millisecond {
		t.Errorf("gave up after %v", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 70*time.Millisecond)
	defer cancel()
	if _, err := bdev.Open(ctx, nil, path, bdev.OpenOptions{}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, bdev.ErrBusy) {
		t.Errorf("open with a context that ended: %v", err)
	}
	closeDrive(t, d2)
}

// holdEnv makes the test binary a process that holds a drive.
const holdEnv = "BDEV_TEST_HOLD"

// TestHolder is a test only as a child of TestOpenAfterKill.
func TestHolder(t *testing.T) {
	path := os.Getenv(holdEnv)
	if path == "" {
		return
	}
	d := open(t, path, bdev.OpenOptions{})
	// I/O under way at the kill, so that its end has something to wait for.
	for i := range 64 {
		d.Start(&bdev.Op{Code: bdev.OpWrite, Offset: int64(i) << 16, Buf: bdev.AllocBuffer(1 << 16)})
	}
	fmt.Println("holding")
	select {}
}

// proves S4
func TestOpenAfterKill(t *testing.T) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			path := p.make(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$", "-test.v")
			cmd.Env = append(os.Environ(), holdEnv+"="+path)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != "holding" {
				t.Log(lines.Text())
			}
			refused(t, path, "used by another process", atOnce)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			d := open(t, path, bdev.OpenOptions{})
			closeDrive(t, d)
			_ = cmd.Wait() // killed, as wanted
		})
	}
}

func TestOpenRefusesWhatIsNoDevice(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	file := makeFile(t, dir, testSize)
	for _, c := range []struct {
		path string
		o    bdev.OpenOptions
		want error
	}{
		{dir, bdev.OpenOptions{}, bdev.ErrNotDevice},
		{fifo, bdev.OpenOptions{}, bdev.ErrNotDevice},
		{"/dev/null", bdev.OpenOptions{}, bdev.ErrNotDevice},
		{filepath.Join(dir, "absent"), bdev.OpenOptions{}, os.ErrNotExist},
		{"/proc/version", bdev.OpenOptions{ReadOnly: true}, bdev.ErrNoDirect},
		{file, bdev.OpenOptions{Shared: true}, unix.EINVAL},
		{file, bdev.OpenOptions{QueueDepth: -1}, unix.EINVAL},
		{file, bdev.OpenOptions{QueueDepth: 1 << 20}, unix.EINVAL},
		{file, bdev.OpenOptions{MaxWorkers: -1}, unix.EINVAL},
		{file, bdev.OpenOptions{Engine: 9}, unix.EINVAL},
	} {
		if d, err := bdev.Open(context.Background(), nil, c.path, c.o); !errors.Is(err, c.want) {
			t.Errorf("open %s %+v: %v, want %v", c.path, c.o, err, c.want)
			if err == nil {
				d.Close()
			}
		}
	}
	if _, err := bdev.Open(context.Background(), sched.New(1), file, bdev.OpenOptions{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("open in a simulation: %v", err)
	}
}

func TestReadOnlyDriveIsNotWritten(t *testing.T) {
	path := makeFile(t, t.TempDir(), testSize)
	for _, kind := range engines {
		d := open(t, path, bdev.OpenOptions{ReadOnly: true, Engine: kind})
		p := bdev.AllocBuffer(4096)
		ctx := context.Background()
		for _, o := range []*bdev.Op{{Code: bdev.OpWrite, Buf: p}, {Code: bdev.OpDiscard, Length: 4096}} {
			if err := d.Run(ctx, &bdev.Batch{Ops: []*bdev.Op{o}}); !errors.Is(err, unix.EROFS) {
				t.Errorf("%v: %v", o.Code, err)
			}
		}
		if err := d.Run(ctx, &bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Buf: p}}}); err != nil {
			t.Error(err)
		}
		bdev.FreeBuffer(p)
		closeDrive(t, d)
	}
}

func TestGeometry(t *testing.T) {
	want := map[string]bdev.Geometry{
		"loop512":  {LogicalSector: 512, PhysicalSector: 512, Discard: true, DiscardUnit: 4096, WriteCache: true},
		"loop4096": {LogicalSector: 4096, PhysicalSector: 4096, Discard: true, DiscardUnit: 4096, WriteCache: true},
		"file":     {Regular: true, PhysicalSector: 4096, Discard: true, DiscardUnit: 4096, WriteCache: true},
		"tmpfs":    {Regular: true, PhysicalSector: 4096, Discard: true, DiscardUnit: 4096, WriteCache: true},
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			path := p.make(t)
			d := open(t, path, bdev.OpenOptions{})
			defer closeDrive(t, d)
			g, w := d.Geometry(), want[p.name]
			w.Path, w.Size = path, testSize
			if w.Regular { // the file system decides
				if g.LogicalSector != 512 && g.LogicalSector != 4096 {
					t.Errorf("logical sector %d", g.LogicalSector)
				}
				w.LogicalSector = g.LogicalSector
			}
			if g != w {
				t.Errorf("geometry %+v\nwant     %+v", g, w)
			}
		})
	}
	// What is no multiple of the sector is not there.
	path := makeFile(t, t.TempDir(), testSize+100)
	d := open(t, path, bdev.OpenOptions{})
	defer closeDrive(t, d)
	if d.Geometry().Size != testSize {
		t.Errorf("size %d", d.Geometry().Size)
	}
}
