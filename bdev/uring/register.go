package uring

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (r *Ring) register(what uintptr, arg unsafe.Pointer, n uintptr) (int, error) {
	v, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(arg), n, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(v), nil
}

// Ops is which opcodes the running kernel has.
type Ops [256]bool

// Has says whether the kernel has the operation.
func (o *Ops) Has(op Opcode) bool { return o[op] }

// Probe asks the kernel which operations it has.
func (r *Ring) Probe() (*Ops, error) {
	p := new(probe)
	if _, err := r.register(regProbe, unsafe.Pointer(p), uintptr(len(p.ops))); err != nil {
		return nil, fmt.Errorf("probe operations of io_uring: %w", err)
	}
	ops := new(Ops)
	for i := range min(int(p.opsLen), len(p.ops)) {
		ops[p.ops[i].op] = p.ops[i].flags&probeSupported != 0
	}
	return ops, nil
}

// RegisterRing registers the ring's descriptor with the calling thread, which
// makes Enter cheaper. From then on only that thread may use the ring.
func (r *Ring) RegisterRing() error {
	u := ringUpdate{offset: ^uint32(0), data: uint64(r.fd)}
	if _, err := r.register(regRingFDs, unsafe.Pointer(&u), 1); err != nil {
		return fmt.Errorf("register io_uring with its thread: %w", err)
	}
	r.enterFD, r.enterFlags = int(u.offset), r.enterFlags|enterRegisteredRing
	return nil
}

// UnregisterRing undoes RegisterRing, on the same thread.
func (r *Ring) UnregisterRing() error {
	if r.enterFlags&enterRegisteredRing == 0 {
		return nil
	}
	u := ringUpdate{offset: uint32(r.enterFD)}
	if _, err := r.register(unregRingFDs, unsafe.Pointer(&u), 1); err != nil {
		return fmt.Errorf("unregister io_uring from its thread: %w", err)
	}
	r.enterFD, r.enterFlags = r.fd, r.enterFlags&^enterRegisteredRing
	return nil
}

// RegisterFiles makes a table of n registered files, all slots empty.
func (r *Ring) RegisterFiles(n int) error {
	a := rsrcRegister{nr: uint32(n), flags: rsrcRegisterSparse}
	if _, err := r.register(regFiles2, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return fmt.Errorf("register %d files with io_uring: %w", n, err)
	}
	return nil
}

// SetFile puts a descriptor into a slot of the table, or empties it with -1.
// The ring holds the file open until then.
func (r *Ring) SetFile(slot, fd int) error {
	r.argFD = int32(fd)
	u := rsrcUpdate{offset: uint32(slot), data: uint64(uintptr(unsafe.Pointer(&r.argFD))), nr: 1}
	if _, err := r.register(regFilesUpdate2, unsafe.Pointer(&u), unsafe.Sizeof(u)); err != nil {
		return fmt.Errorf("set registered file %d of io_uring: %w", slot, err)
	}
	return nil
}

// UnregisterFiles gives the table of files back.
func (r *Ring) UnregisterFiles() error {
	if _, err := r.register(regUnregisterFiles, nil, 0); err != nil {
		return fmt.Errorf("unregister files of io_uring: %w", err)
	}
	return nil
}

// RegisterBuffers makes a table of n registered buffers, all slots empty.
func (r *Ring) RegisterBuffers(n int) error {
	a := rsrcRegister{nr: uint32(n), flags: rsrcRegisterSparse}
	if _, err := r.register(regBuffers2, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return fmt.Errorf("register %d buffers with io_uring: %w", n, err)
	}
	return nil
}

// SetBuffer puts memory into a slot of the table, or empties it with nil. The
// kernel holds the pages until then. ENOMEM: more than RLIMIT_MEMLOCK allows.
func (r *Ring) SetBuffer(slot int, mem []byte) error {
	r.argIov = syscall.Iovec{}
	if len(mem) > 0 {
		r.argIov.Base = &mem[0]
		r.argIov.SetLen(len(mem))
	}
	u := rsrcUpdate{offset: uint32(slot), data: uint64(uintptr(unsafe.Pointer(&r.argIov))), nr: 1}
	_, err := r.register(regBuffersUpdate, unsafe.Pointer(&u), unsafe.Sizeof(u))
	runtime.KeepAlive(mem)
	r.argIov = syscall.Iovec{}
	if err != nil {
		return fmt.Errorf("set registered buffer %d of io_uring (%d bytes): %w", slot, len(mem), err)
	}
	return nil
}

// UnregisterBuffers gives the table of buffers back.
func (r *Ring) UnregisterBuffers() error {
	if _, err := r.register(regUnregisterBuffers, nil, 0); err != nil {
		return fmt.Errorf("unregister buffers of io_uring: %w", err)
	}
	return nil
}

// LimitWorkers bounds the kernel's worker threads of this ring, for each
// thread that submits: bounded ones do what ends in a time given by a device,
// unbounded ones the rest.
func (r *Ring) LimitWorkers(bounded, unbounded uint32) error {
	r.args = [2]uint32{bounded, unbounded}
	if _, err := r.register(regIOWQMaxWorkers, unsafe.Pointer(&r.args), 2); err != nil {
		return fmt.Errorf("limit workers of io_uring: %w", err)
	}
	return nil
}
