package ring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Bounds of the number of entries.
const (
	MinEntries = 2
	MaxEntries = 4096
)

// Version is the form's version.
const Version = 3

// Flags of descriptors.
const (
	FlagSync     uint8 = 1 << 0 // an append is answered when the record is durable
	FlagFallback uint8 = 1 << 1 // an allocation may take another class
	FlagSpare    uint8 = 1 << 2 // an allocation may take the spare share
	FlagChained  uint8 = 1 << 3 // a write or commit is refused unless as many chained writes of the handle have failed as its offset says
)

// FlagEOF is of a read's completion: it met the object's end.
const FlagEOF uint16 = 1 << 0

// Sizes and places, in bytes.
const (
	DescriptorSize = 64
	CompletionSize = 32

	headSize    = 4096
	submittedAt = 0x000
	takenAt     = 0x080
	bellAt      = 0x100
	endedAt     = 0x180
	seenAt      = 0x200
	waiterAt    = 0x280
	wantedAt    = 0x300
)

// ErrBroken is wrapped by the errors of a ring whose words cannot be true.
var ErrBroken = errors.New("the ring's words are not as they can be")

// Size returns how many bytes of an arena a ring takes, a multiple of 4096; 0 if
// there is no ring of so many entries.
func Size(entries int) int {
	if entries < MinEntries || entries > MaxEntries || entries&(entries-1) != 0 {
		return 0
	}
	return (headSize + entries*(DescriptorSize+CompletionSize) + headSize - 1) &^ (headSize - 1)
}

// memory is a ring's memory. Everything in it is read and written atomically.
type memory struct {
	base    unsafe.Pointer
	keep    []byte // base's
	entries uint32
}

func newMemory(mem []byte, entries int) (memory, error) {
	size := Size(entries)
	if size == 0 || len(mem) != size || uintptr(unsafe.Pointer(&mem[0]))%64 != 0 {
		return memory{}, fmt.Errorf("%d bytes for a ring of %d entries: want %d, in whole cache lines", len(mem), entries, size)
	}
	return memory{base: unsafe.Pointer(&mem[0]), keep: mem, entries: uint32(entries)}, nil
}

func (m *memory) word(at uintptr) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Add(m.base, at)) }

func (m *memory) descriptor(n uint32) *[DescriptorSize / 8]atomic.Uint64 {
	at := headSize + uintptr(n&(m.entries-1))*DescriptorSize
	return (*[DescriptorSize / 8]atomic.Uint64)(unsafe.Add(m.base, at))
}

func (m *memory) completion(n uint32) *[CompletionSize / 8]atomic.Uint64 {
	at := headSize + uintptr(m.entries)*DescriptorSize + uintptr(n&(m.entries-1))*CompletionSize
	return (*[CompletionSize / 8]atomic.Uint64)(unsafe.Add(m.base, at))
}

// Descriptor is one request.
type Descriptor struct {
	Op     uint16 // an ioctl.Op
	Flags  uint8
	Arena  uint16 // where the data lies or goes: an arena's number,
	Window uint32 // an offset into it in bytes,
	Length uint32 // and how many bytes
	Tag    uint64 // the client's own
	Handle uint64 // an ioctl.Handle
	Offset int64  // into the object in bytes, or what else the operation says

	// Of an allocation; else 0.
	Class uint8
	Owner uint32
	Label uint64 // the object's tag
}

func (d *Descriptor) put(e *[DescriptorSize / 8]atomic.Uint64) {
	e[0].Store(uint64(d.Op) | uint64(d.Flags)<<16 | uint64(d.Class)<<24 | uint64(d.Arena)<<32)
	e[1].Store(d.Tag)
	e[2].Store(d.Handle)
	e[3].Store(uint64(d.Offset))
	e[4].Store(uint64(d.Window) | uint64(d.Length)<<32)
	e[5].Store(uint64(d.Owner))
	e[6].Store(d.Label)
	e[7].Store(0)
}

// get copies a descriptor out, and says whether its reserved bytes are zero.
func (d *Descriptor) get(e *[DescriptorSize / 8]atomic.Uint64) bool {
	w := e[0].Load()
	d.Op, d.Flags, d.Class, d.Arena = uint16(w), uint8(w>>16), uint8(w>>24), uint16(w>>32)
	d.Tag, d.Handle, d.Offset = e[1].Load(), e[2].Load(), int64(e[3].Load())
	at := e[4].Load()
	d.Window, d.Length = uint32(at), uint32(at>>32)
	owner := e[5].Load()
	d.Owner, d.Label = uint32(owner), e[6].Load()
	return w>>48 == 0 && owner>>32 == 0 && e[7].Load() == 0
}

// Completion is the answer to a descriptor whose request succeeded.
type Completion struct {
	Tag   uint64
	N     uint32 // bytes moved, or what else the operation says
	Op    uint16 // the descriptor's
	Flags uint16
	A, B  uint64 // what the operation says
}

func (c *Completion) put(e *[CompletionSize / 8]atomic.Uint64) {
	e[0].Store(c.Tag)
	e[1].Store(uint64(c.N) | uint64(c.Op)<<32 | uint64(c.Flags)<<48)
	e[2].Store(c.A)
	e[3].Store(c.B)
}

func (c *Completion) get(e *[CompletionSize / 8]atomic.Uint64) {
	c.Tag = e[0].Load()
	w := e[1].Load()
	c.N, c.Op, c.Flags = uint32(w), uint16(w>>32), uint16(w>>48)
	c.A, c.B = e[2].Load(), e[3].Load()
}
