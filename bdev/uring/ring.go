package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is returned when this kernel, or what confines this process
// in it, refuses an io_uring, or one that this package can use.
var ErrUnsupported = errors.New("io_uring is not available")

// Options say what ring to make. The zero value is not valid: Entries is
// required.
type Options struct {
	Entries   uint32 // submission entries, rounded up to a power of two
	CQEntries uint32 // completion entries; 0: twice the submission entries
	// Flags are Setup* flags. [New] drops none of them: a kernel that lacks
	// one refuses the ring with EINVAL, which is wrapped by ErrUnsupported.
	Flags uint32
}

// Ring is an io_uring instance. See the package comment for who may call what.
type Ring struct {
	fd         int
	enterFD    int // the descriptor, or the index it is registered under
	enterFlags uint32
	features   uint32
	flags      uint32

	rings []byte // the mapping that holds both rings' heads, tails and CQEs
	sqMem []byte // the mapping that holds the SQEs

	sqHead, sqTail, sqFlags *uint32
	sqMask, sqEntries       uint32
	sqes                    []SQE
	tail                    uint32 // ours: entries before it were handed out

	cqHead, cqTail *uint32
	cqMask         uint32
	cqEntries      uint32
	cqes           []CQE

	// Arguments of registrations that point on. They live here because memory
	// named by a number must not move, as a goroutine's stack does.
	argFD  int32
	argIov syscall.Iovec
	args   [2]uint32

	// Those of EnterTimed, for the same reason.
	argWait waitArg
	argTime syscall.Timespec
}

// New makes a ring. The caller closes it.
func New(o Options) (*Ring, error) {
	p := params{flags: o.Flags | SetupClamp}
	if o.CQEntries != 0 {
		p.flags |= SetupCQSize
		p.cqEntries = o.CQEntries
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(o.Entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("%w: io_uring_setup: %w", ErrUnsupported, errno)
	}
	r := &Ring{fd: int(fd), enterFD: int(fd), features: p.features, flags: p.flags}
	const need = FeatSingleMmap | FeatNoDrop | FeatSubmitStable | FeatExtArg // Linux 5.11
	if p.features&need != need {
		return nil, errors.Join(fmt.Errorf("%w: features %#x lack some of %#x", ErrUnsupported, p.features, need), r.Close())
	}
	if err := r.mmap(&p); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Ring) mmap(p *params) error {
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if r.rings, err = unix.Mmap(r.fd, offSQRing, int(size), prot, flags); err != nil {
		return fmt.Errorf("mmap rings of io_uring: %w", err)
	}
	if r.sqMem, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), prot, flags); err != nil {
		return fmt.Errorf("mmap entries of io_uring: %w", err)
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqFlags = word(p.sq.head), word(p.sq.tail), word(p.sq.flags)
	r.sqMask, r.sqEntries = *word(p.sq.ringMask), p.sqEntries
	r.sqes = unsafe.Slice((*SQE)(unsafe.Pointer(&r.sqMem[0])), p.sqEntries)
	r.cqHead, r.cqTail = word(p.cq.head), word(p.cq.tail)
	r.cqMask, r.cqEntries = *word(p.cq.ringMask), p.cqEntries
	r.cqes = unsafe.Slice((*CQE)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	// The indirection array names each entry once and for all.
	array := unsafe.Slice(word(p.sq.array), p.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return nil
}

// Close gives the ring back to the kernel. Nobody may be in any other method;
// what is still under way is finished by the kernel unseen.
func (r *Ring) Close() error {
	var errs [3]error
	if r.rings != nil {
		errs[0] = unix.Munmap(r.rings)
	}
	if r.sqMem != nil {
		errs[1] = unix.Munmap(r.sqMem)
	}
	errs[2] = unix.Close(r.fd)
	return errors.Join(errs[:]...)
}

// Entries returns how many submission entries there are.
func (r *Ring) Entries() int { return int(r.sqEntries) }

// CQEntries returns how many completion entries there are.
func (r *Ring) CQEntries() int { return int(r.cqEntries) }

// SQE returns the next free submission entry, zeroed, or nil when all are
// taken. The kernel sees it after Publish.
func (r *Ring) SQE() *SQE {
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.sqEntries {
		return nil
	}
	e := &r.sqes[r.tail&r.sqMask]
	r.tail++
	*e = SQE{}
	return e
}

// Publish makes the entries handed out since the last Publish visible to the
// kernel: they must be complete.
func (r *Ring) Publish() { atomic.StoreUint32(r.sqTail, r.tail) }

// Pending returns how many published entries the kernel has not taken.
func (r *Ring) Pending() uint32 {
	return atomic.LoadUint32(r.sqTail) - atomic.LoadUint32(r.sqHead)
}

// Ready returns how many completions can be reaped without entering.
func (r *Ring) Ready() int {
	return int(atomic.LoadUint32(r.cqTail) - atomic.LoadUint32(r.cqHead))
}

// NeedsEnter says whether the kernel has completions that only an Enter with
// EnterGetEvents brings into the queue. Rings with SetupTaskrunFlag only.
func (r *Ring) NeedsEnter() bool {
	return atomic.LoadUint32(r.sqFlags)&(sqTaskrun|sqCQOverflow) != 0
}

// Reap moves up to len(to) completions out of the queue, without entering.
func (r *Ring) Reap(to []CQE) int {
	head := atomic.LoadUint32(r.cqHead)
	n := min(int(atomic.LoadUint32(r.cqTail)-head), len(to))
	for i := range n {
		to[i] = r.cqes[(head+uint32(i))&r.cqMask]
	}
	atomic.StoreUint32(r.cqHead, head+uint32(n))
	return n
}

// Enter lets the kernel take up to submit published entries and, with
// EnterGetEvents, waits until at least wait completions can be reaped. It
// returns how many entries were taken. EINTR comes back only when none was.
func (r *Ring) Enter(submit, wait, flags uint32) (int, error) {
	// The calling goroutine's processor must be given away if this takes long:
	// so never a raw system call.
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.enterFD), uintptr(submit),
		uintptr(wait), uintptr(flags|r.enterFlags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// EnterTimed is Enter with EnterGetEvents that waits for at most timeout, and then
// returns ETIME if it took no entry. One caller at a time.
func (r *Ring) EnterTimed(submit, wait uint32, timeout time.Duration) (int, error) {
	r.argTime = syscall.NsecToTimespec(int64(timeout))
	r.argWait = waitArg{timeout: uint64(uintptr(unsafe.Pointer(&r.argTime)))}
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.enterFD), uintptr(submit), uintptr(wait),
		uintptr(EnterGetEvents|enterExtArg|r.enterFlags), uintptr(unsafe.Pointer(&r.argWait)), unsafe.Sizeof(r.argWait))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Flags returns the Setup flags that the ring was made with.
func (r *Ring) Flags() uint32 { return r.flags }
