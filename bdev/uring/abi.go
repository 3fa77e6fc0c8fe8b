package uring

import "unsafe"

// SQE is one submission queue entry, as the kernel lays it out.
type SQE struct {
	Opcode      Opcode
	Flags       uint8
	IOPrio      uint16
	FD          int32  // or the index of a registered file, with SQEFixedFile; futex flags for OpFutexWait
	Off         uint64 // offset; command number of OpURingCmd; expected value of OpFutexWait
	Addr        uint64 // memory, or start or length where an operation has no memory
	Len         uint32 // bytes, number of iovecs, or mode of OpFallocate
	OpFlags     uint32 // RWF_* of reads and writes, FsyncDatasync
	UserData    uint64
	BufIndex    uint16 // registered buffer of OpReadFixed and OpWriteFixed
	Personality uint16
	FileIndex   int32
	Addr3       uint64
	_           uint64
}

// CQE is one completion queue entry.
type CQE struct {
	UserData uint64
	Res      int32 // result, or a negative errno
	Flags    uint32
}

// Opcode is what an entry asks for.
type Opcode uint8

// The operations that this project uses.
const (
	OpNop        Opcode = 0
	OpReadv      Opcode = 1
	OpWritev     Opcode = 2
	OpFsync      Opcode = 3
	OpReadFixed  Opcode = 4
	OpWriteFixed Opcode = 5
	OpPollAdd    Opcode = 6
	OpCancel     Opcode = 14 // Addr: the UserData of what is to end
	OpFallocate  Opcode = 17
	OpRead       Opcode = 22
	OpWrite      Opcode = 23
	OpURingCmd   Opcode = 46
	OpFutexWait  Opcode = 51
)

// Flags of an entry, of its operation, of a completion.
const (
	SQEFixedFile  uint8  = 1 << 0
	SQEAsync      uint8  = 1 << 4 // let a kernel worker do it, blocking
	FsyncDatasync uint32 = 1 << 0
	PollMulti     uint32 = 1 << 0 // Len of OpPollAdd: go on after the first event
	CQEMore       uint32 = 1 << 1 // the entry will complete again
)

// CmdBlockDiscard is the OpURingCmd of block devices that discards Addr (start)
// and Addr3 (length), both in bytes. Linux 6.12.
const CmdBlockDiscard = 0x12 << 8

// Flags of Ring creation.
const (
	SetupCQSize       uint32 = 1 << 3
	SetupClamp        uint32 = 1 << 4
	SetupSubmitAll    uint32 = 1 << 7
	SetupCoopTaskrun  uint32 = 1 << 8
	SetupTaskrunFlag  uint32 = 1 << 9
	SetupSingleIssuer uint32 = 1 << 12
	SetupDeferTaskrun uint32 = 1 << 13
)

// Flags of Enter.
const (
	EnterGetEvents      uint32 = 1 << 0
	enterExtArg         uint32 = 1 << 3
	enterRegisteredRing uint32 = 1 << 4
)

// What Features may hold.
const (
	FeatSingleMmap   uint32 = 1 << 0
	FeatNoDrop       uint32 = 1 << 1
	FeatSubmitStable uint32 = 1 << 2
	FeatExtArg       uint32 = 1 << 8
)

// Bits of the submission ring's flags word.
const (
	sqCQOverflow uint32 = 1 << 1
	sqTaskrun    uint32 = 1 << 2
)

// Commands of io_uring_register.
const (
	regUnregisterBuffers = 1
	regUnregisterFiles   = 3
	regProbe             = 8
	regFiles2            = 13
	regFilesUpdate2      = 14
	regBuffers2          = 15
	regBuffersUpdate     = 16
	regIOWQMaxWorkers    = 19
	regRingFDs           = 20
	unregRingFDs         = 21

	rsrcRegisterSparse = 1 << 0
)

// Offsets to mmap at.
const (
	offSQRing = 0
	offSQEs   = 0x10000000
)

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle uint32
	features, wqFD                                         uint32
	_                                                      [3]uint32
	sq                                                     sqOffsets
	cq                                                     cqOffsets
}

// waitArg is the argument of an Enter that says for how long to wait.
type waitArg struct {
	sigmask      uint64
	sigmaskBytes uint32
	_            uint32
	timeout      uint64 // address of a syscall.Timespec
}

// rsrcRegister is the argument of the registrations of files and buffers.
type rsrcRegister struct {
	nr, flags  uint32
	_          uint64
	data, tags uint64
}

// rsrcUpdate is the argument of their updates, and of the ring's own
// registration (offset, unused, data).
type rsrcUpdate struct {
	offset, _  uint32
	data, tags uint64
	nr, _      uint32
}

type ringUpdate struct {
	offset, _ uint32
	data      uint64
}

type probeOp struct {
	op, _ uint8
	flags uint16
	_     uint32
}

type probe struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [256]probeOp
}

const probeSupported = 1 << 0

// The kernel's structures have these sizes.
const (
	_ = -(unsafe.Sizeof(SQE{}) ^ 64)
	_ = -(unsafe.Sizeof(CQE{}) ^ 16)
	_ = -(unsafe.Sizeof(params{}) ^ 120)
	_ = -(unsafe.Sizeof(rsrcRegister{}) ^ 32)
	_ = -(unsafe.Sizeof(rsrcUpdate{}) ^ 32)
	_ = -(unsafe.Sizeof(ringUpdate{}) ^ 16)
	_ = -(unsafe.Sizeof(probe{}) ^ (16 + 256*8))
)
