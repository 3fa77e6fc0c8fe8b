package bdev

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/bdev/uring"
	"github.com/mpool-go/mpool/sched"
)

// EngineKind chooses what does the I/O.
type EngineKind uint8

// The kinds of engine.
const (
	Auto  EngineKind = iota // io_uring, or pread where the kernel refuses it or the device makes it the slower
	URing                   // io_uring, or an error
	Pread                   // pread, pwrite, fdatasync
)

func (k EngineKind) String() string {
	switch k {
	case Auto:
		return "auto"
	case URing:
		return "io_uring"
	case Pread:
		return "pread"
	default:
		return "unknown"
	}
}

// OpenOptions say how to open a drive. The zero value opens it for reading and
// writing, exclusively, with the best engine.
type OpenOptions struct {
	ReadOnly bool
	// Shared opens without taking the drive from others, and without minding
	// that they have it: for looking at what may be in use. ReadOnly only.
	Shared bool
	Engine EngineKind
	// BusyRetry is how long a busy device is tried again, in case its holder
	// was just killed. 0: 5 s. Negative: not at all. A device whose holder
	// will not go away by itself (a mount, swap, another device) is not tried
	// again.
	BusyRetry time.Duration
	// QueueDepth is how many operations the drive has under way at most;
	// others wait. 0: 256. At most 16384.
	QueueDepth int
	// MaxWorkers is how many threads of the operating system the drive blocks
	// at most: the pread engine's, or the kernel's own for each thread that
	// submits to the io_uring. 0: 32.
	MaxWorkers int
}

const (
	defaultBusyRetry  = 5 * time.Second
	busyPause         = 50 * time.Millisecond
	defaultQueueDepth = 256
	maxQueueDepth     = 16384
	defaultMaxWorkers = 32
)

// validate fills in the defaults, or says what is wrong.
func (o *OpenOptions) validate() error {
	switch {
	case o.Shared && !o.ReadOnly:
		return fmt.Errorf("a shared drive must be read-only: %w", unix.EINVAL)
	case o.Engine > Pread:
		return fmt.Errorf("unknown engine %d: %w", o.Engine, unix.EINVAL)
	case o.QueueDepth < 0 || o.QueueDepth > maxQueueDepth:
		return fmt.Errorf("queue depth %d is not in 1..%d: %w", o.QueueDepth, maxQueueDepth, unix.EINVAL)
	case o.MaxWorkers < 0:
		return fmt.Errorf("negative number of workers: %w", unix.EINVAL)
	}
	if o.BusyRetry == 0 {
		o.BusyRetry = defaultBusyRetry
	}
	if o.QueueDepth == 0 {
		o.QueueDepth = defaultQueueDepth
	}
	if o.MaxWorkers == 0 {
		o.MaxWorkers = defaultMaxWorkers
	}
	return nil
}

// Open opens a block device or a regular file as a drive: O_DIRECT and, unless
// Shared, exclusively. Exclusive means: O_EXCL for a block device, a lock
// (flock) for a file, and for a loop device also its backing file's; a file or
// device that is under a loop device is refused. Only what takes the same
// claims is kept out: a program that opens the device without O_EXCL, a loop
// device made later, another host are not.
//
// Errors: ErrBusy (with who, as a *BusyError), ErrNotDevice, ErrNoDirect,
// uring.ErrUnsupported when io_uring was asked for and is refused, what open(2)
// returns, the context's error while it waits for a busy device. s must be nil:
// a simulation has simulated drives.
func Open(ctx context.Context, s *sched.Sched, path string, o OpenOptions) (*Drive, error) {
	if s.Simulated() {
		return nil, fmt.Errorf("open %s: a simulation has no real devices: %w", path, unix.EINVAL)
	}
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	dev, err := openPatiently(ctx, s, path, &o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	e, err := newEngine(dev, &o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), dev.close())
	}
	return NewDrive(s, e), nil
}

// openPatiently opens the device, trying again while it is busy but may soon
// not be.
func openPatiently(ctx context.Context, s *sched.Sched, path string, o *OpenOptions) (*device, error) {
	for end := s.Now().Add(o.BusyRetry); ; {
		dev, err := openDevice(path, o)
		var busy *BusyError
		if err == nil || !errors.As(err, &busy) || busy.Permanent || !s.Now().Add(busyPause).Before(end) {
			return dev, err
		}
		if err := s.Sleep(ctx, busyPause); err != nil {
			return nil, fmt.Errorf("%w: %w", busy, err)
		}
	}
}

func newEngine(dev *device, o *OpenOptions) (Engine, error) {
	if o.Engine == URing || (o.Engine == Auto && dev.suits()) {
		e, err := newURingEngine(dev, o)
		if err == nil {
			return e, nil
		}
		if o.Engine == URing || !errors.Is(err, uring.ErrUnsupported) {
			return nil, err
		}
	}
	return newPreadEngine(dev, o), nil
}

// openDevice opens a device once, claims it, and finds out its geometry.
func openDevice(path string, o *OpenOptions) (*device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFBLK && kind != unix.S_IFREG {
		return nil, ErrNotDevice
	}
	flags := unix.O_RDWR
	if o.ReadOnly {
		flags = unix.O_RDONLY
	}
	if kind == unix.S_IFBLK && !o.Shared {
		flags |= unix.O_EXCL
	}
	fd, err := open(path, flags|unix.O_DIRECT|unix.O_CLOEXEC)
	switch {
	case err == nil:
	case errors.Is(err, unix.EBUSY):
		return nil, whoHolds(path, st.Rdev)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: %w", ErrNoDirect, err)
	default:
		return nil, err
	}
	dev := &device{fd: fd}
	if err := dev.setUp(path, o, &st); err != nil {
		return nil, errors.Join(err, dev.close())
	}
	return dev, nil
}

func (d *device) setUp(path string, o *OpenOptions, named *unix.Stat_t) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Dev != named.Dev || st.Ino != named.Ino || st.Mode&unix.S_IFMT != named.Mode&unix.S_IFMT {
		return fmt.Errorf("the path names another file than a moment ago: %w", unix.EAGAIN)
	}
	d.geo = Geometry{Path: path, ReadOnly: o.ReadOnly}
	if !o.Shared {
		if err := d.claim(&st); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := d.measureFile(&st); err != nil {
			return err
		}
	} else if err := d.measureBlock(st.Rdev); err != nil {
		return err
	}
	d.noRing = d.isFUSE()
	d.punts = d.waits()
	return nil
}

// open is open(2) that goes on after signals.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}
