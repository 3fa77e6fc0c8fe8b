package bdev

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxTransfer is how much one system call moves at most; the rest of an
	// operation follows.
	maxTransfer = 0x7ffff000
	// maxPieces is how many pieces one vectored system call takes (IOV_MAX).
	maxPieces = 1024
	// maxRetries bounds how often an operation is tried again after EAGAIN and
	// EINTR: a kernel that never does it must not make us spin.
	maxRetries = 1000

	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
)

// errShort ends an operation that the device did only in part.
var errShort = fmt.Errorf("the device ended within the operation: %w", syscall.EIO)

// device is an open device, as both real engines know it.
type device struct {
	fd    int
	locks []int // descriptors that hold locks only
	geo   Geometry

	// punts: io_uring hands each read and write to a kernel thread, because they
	// cannot be begun without waiting (zram, files of some file systems).
	punts bool
	// noRing: io_uring is not to be used unless asked for: see [device.suits].
	noRing bool

	// plainDiscard: a discard has to go through ioctl, because io_uring has
	// none for this device.
	plainDiscard atomic.Bool
}

// close closes all descriptors, that of the device first.
func (d *device) close() error {
	errs := []error{unix.Close(d.fd)}
	for _, fd := range d.locks {
		errs = append(errs, unix.Close(fd))
	}
	return joinClose(d.geo.Path, errs...)
}

// do does an operation in the caller's goroutine.
func (d *device) do(o *Op) error {
	switch o.Code {
	case OpFlush:
		return unix.Fdatasync(d.fd) // see isTransient
	case OpDiscard:
		for {
			again, err := o.settle(0, d.discard(o.Offset, o.Length))
			if !again {
				return err
			}
		}
	case OpRead, OpWrite:
		return d.transfer(o)
	default:
		return syscall.EINVAL
	}
}

// isTransient says whether an operation that failed so is to be tried again.
// ECANCELED: the thread that submitted it to an io_uring ended before it began.
// A flush that was interrupted may have met, and reported for the only time, a
// write that failed: it has failed.
func isTransient(code OpCode, err error) bool {
	if errors.Is(err, syscall.ECANCELED) {
		return true
	}
	return code != OpFlush && (errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN))
}

func (d *device) discard(offset, length int64) error {
	if d.geo.Regular {
		return unix.Fallocate(d.fd, punchHole, offset, length)
	}
	span := [2]uint64{uint64(offset), uint64(length)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return errno
	}
	return nil
}

// transfer reads or writes an operation's memory, whole.
func (d *device) transfer(o *Op) error {
	for {
		n, err := d.transferSome(o)
		again, err := o.settle(n, err)
		if !again {
			return err
		}
	}
}

func (d *device) transferSome(o *Op) (int, error) {
	at := o.Offset + o.state.done
	if o.Buf != nil {
		p := o.Buf[o.state.done:]
		p = p[:min(len(p), maxTransfer)]
		if o.Code == OpRead {
			return unix.Pread(d.fd, p, at)
		}
		return unix.Pwrite(d.fd, p, at)
	}
	vec := o.rest()
	if o.Code == OpRead {
		return unix.Preadv(d.fd, vec, at)
	}
	return unix.Pwritev(d.fd, vec, at)
}

// rest returns the pieces of Vec that are still to be done, as many as one
// call takes.
func (o *Op) rest() [][]byte {
	skip := o.state.done
	for i, v := range o.Vec {
		if skip < int64(len(v)) {
			vec := o.Vec[i:]
			vec = vec[:min(len(vec), maxPieces)]
			if skip > 0 {
				vec = append([][]byte{v[skip:]}, vec[1:]...)
			}
			return vec
		}
		skip -= int64(len(v))
	}
	return nil
}

// settle takes the result of one try at an operation and says whether there
// must be another.
func (o *Op) settle(n int, err error) (again bool, _ error) {
	if err != nil {
		if isTransient(o.Code, err) && o.state.retries < maxRetries {
			o.state.retries++
			return true, nil
		}
		return false, err
	}
	if o.Code != OpRead && o.Code != OpWrite {
		return false, nil
	}
	if n == 0 || n%o.Drive.geo.LogicalSector != 0 {
		return false, errShort
	}
	o.state.done += int64(n)
	return o.state.done < o.Size(), nil
}

// joinClose joins the errors of closing a device's parts.
func joinClose(path string, errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	return nil
}
