package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
	"unsafe"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Source is a device or an image that is read and never written. ReadAt may be
// called by several goroutines at once; a *os.File in a few lines of wrapping
// or a simulated disk fits behind it.
type Source interface {
	io.ReaderAt
	Size() int64  // bytes
	Path() string // for messages
	Close() error
}

// Target is a Source that Repair writes to.
type Target interface {
	Source
	// WriteAt writes whole blocks. What was not flushed may be lost, or torn.
	io.WriterAt
	// Flush makes durable what was written since the last one.
	Flush() error
}

// blockSize is the unit of everything on media, in bytes.
const blockSize = layout.BlockSize

// busyRetry is how long a device is tried again whose holder may just be
// ending.
const busyRetry = time.Second

// openSource opens a real device, or a file.
func openSource(ctx context.Context, op, path string, o bdev.OpenOptions) (Source, error) {
	d, err := openDrive(ctx, op, path, o)
	if err != nil {
		return nil, err
	}
	return driveSource{d}, nil
}

// openTarget opens a real device, or a file, to be repaired.
func openTarget(ctx context.Context, path string) (Target, error) {
	d, err := openDrive(ctx, opCheck, path, bdev.OpenOptions{BusyRetry: busyRetry})
	if err != nil {
		return nil, err
	}
	return &driveTarget{driveSource: driveSource{d}, ticket: d.Ticket()}, nil
}

func openDrive(ctx context.Context, op, path string, o bdev.OpenOptions) (*bdev.Drive, error) {
	d, err := bdev.Open(ctx, nil, path, o)
	if err == nil {
		return d, nil
	}
	e := &api.Error{Code: api.EIO, Op: op, Device: path, Detail: "the device cannot be opened", Err: err}
	switch {
	case errors.Is(err, bdev.ErrBusy):
		e.Code, e.Detail = api.EBUSY, "the device is in use: deactivate its pool, or stop the daemon, and check again"
	case errors.Is(err, bdev.ErrNotDevice):
		e.Code, e.Detail = api.EINVAL, "neither a block device nor a regular file"
	case errors.Is(err, bdev.ErrNoDirect):
		e.Code, e.Detail = api.ENOTSUP, "the file system has no direct I/O; put the file elsewhere"
	case ctx.Err() != nil:
		return nil, api.ContextError(op, context.Cause(ctx))
	case errors.Is(err, fs.ErrNotExist):
		e.Code, e.Detail = api.ENOENT, "there is no such device"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Detail = api.EPERM, "no permission to open the device; try as root, or as its owner"
	}
	return nil, e
}

// driveSource is a drive as a Source.
type driveSource struct {
	d *bdev.Drive
}

func (s driveSource) Size() int64  { return s.d.Geometry().Size }
func (s driveSource) Path() string { return s.d.Path() }
func (s driveSource) Close() error { return s.d.Close() }

// ReadAt reads at any place. What is aligned to blocks, memory included, is read
// without a copy.
func (s driveSource) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: negative offset", s.Path(), off)
	}
	want, end := p, off+int64(len(p))
	if size := s.Size(); end > size {
		if off >= size {
			return 0, io.EOF
		}
		want, end = p[:size-off], size
	}
	if (uintptr(unsafe.Pointer(&want[0]))|uintptr(off)|uintptr(len(want)))%blockSize == 0 {
		if err := s.read(want, off); err != nil {
			return 0, err
		}
	} else if err := s.readApart(want, off, end); err != nil {
		return 0, err
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// readApart reads by way of aligned memory.
func (s driveSource) readApart(p []byte, off, end int64) error {
	unit := int64(s.d.Geometry().LogicalSector)
	from := off - off%unit
	buf := bdev.AllocBuffer(int((end - from + unit - 1) / unit * unit))
	defer bdev.FreeBuffer(buf)
	if err := s.read(buf, from); err != nil {
		return err
	}
	copy(p, buf[off-from:])
	return nil
}

func (s driveSource) read(p []byte, off int64) error {
	b := bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpRead, Offset: off, Buf: p}}}
	return s.d.Run(context.Background(), &b)
}

// driveTarget is a drive as a Target.
type driveTarget struct {
	driveSource
	ticket bdev.Ticket // before the writes that are not flushed yet
}

// WriteAt writes a copy, in aligned memory, of whole blocks.
func (t *driveTarget) WriteAt(p []byte, off int64) (int, error) {
	buf := bdev.AllocBuffer(len(p))
	defer bdev.FreeBuffer(buf)
	copy(buf, p)
	b := bdev.Batch{Ops: []*bdev.Op{{Code: bdev.OpWrite, Offset: off, Buf: buf}}}
	if err := t.d.Run(context.Background(), &b); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush makes durable what was written since the last one.
func (t *driveTarget) Flush() error {
	if err := t.d.Flush(context.Background(), t.ticket); err != nil {
		return err
	}
	t.ticket = t.d.Ticket()
	return nil
}

// device is one device under check.
type device struct {
	src  Source // a Target, if it is to be repaired
	path string
	size int64 // whole blocks, in bytes
	sb   [omf.Copies]sbCopy
	best *omf.Superblock // of its own copies the one of the highest generation, or nil
	slot int             // in the pool's drive table, or -1
}

func newDevice(src Source) *device {
	return &device{src: src, path: src.Path(), size: src.Size() &^ (blockSize - 1), slot: -1}
}

// openAll opens the devices that are to be checked. All are open, or none.
func openAll(
	ctx context.Context, paths []string, o *Options, open func(context.Context, string) (Source, error),
) ([]*device, error) {
	if len(paths) == 0 {
		return nil, api.Errorf(api.EINVAL, o.op, "no device given")
	}
	var list []*device
	for _, path := range paths {
		src, err := open(ctx, path)
		if err != nil {
			return nil, errors.Join(err, closeAll(list, o.op))
		}
		list = append(list, newDevice(src))
	}
	return list, nil
}

func closeAll(list []*device, op string) error {
	var errs []error
	for _, d := range list {
		if err := d.src.Close(); err != nil {
			errs = append(errs, &api.Error{Code: api.EIO, Op: op, Device: d.path, Detail: "the device cannot be closed", Err: err})
		}
	}
	return errors.Join(errs...)
}

// errOutside is the error of a read that does not lie on the device.
var errOutside = errors.New("outside the device")

// read fills p from a byte offset, or fails.
func (d *device) read(p []byte, off int64) error {
	if off < 0 || off > d.size-int64(len(p)) {
		return errOutside
	}
	n, err := d.src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
