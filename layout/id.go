package layout

import (
	"fmt"
	"strconv"
	"strings"
)

// Kind says what an object is.
type Kind uint8

// The kinds of object. The numbers are part of the media format and of the
// wire protocol.
const (
	KindMblock Kind = 1
	KindMlog   Kind = 2
)

func (k Kind) String() string {
	switch k {
	case KindMblock:
		return "mblock"
	case KindMlog:
		return "mlog"
	default:
		return fmt.Sprintf("kind%d", uint8(k))
	}
}

// Valid says whether k is a known kind.
func (k Kind) Valid() bool { return k == KindMblock || k == KindMlog }

// ObjectID names an object of a pool for ever: the kind in the top 8 bits, a
// counter in the other 56. Zero is no object.
type ObjectID uint64

// CounterBits is the width of an id's counter.
const CounterBits = 56

// MaxCounter is the highest counter an id can carry.
const MaxCounter = 1<<CounterBits - 1

// NewObjectID makes an id. counter must be in 1..MaxCounter.
func NewObjectID(kind Kind, counter uint64) ObjectID {
	return ObjectID(uint64(kind)<<CounterBits | counter&MaxCounter)
}

// Kind returns the id's kind, valid or not.
func (id ObjectID) Kind() Kind { return Kind(id >> CounterBits) }

// Counter returns the id's counter.
func (id ObjectID) Counter() uint64 { return uint64(id) & MaxCounter }

// Valid says whether the id can name an object: a known kind and a counter
// that is not zero.
func (id ObjectID) Valid() bool { return id.Kind().Valid() && id.Counter() != 0 }

// String returns 16 hex digits.
func (id ObjectID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// ParseObjectID reads 1 to 16 hex digits, with or without 0x before them.
func ParseObjectID(s string) (ObjectID, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
	v, err := strconv.ParseUint(digits, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("object id %q: want up to 16 hex digits", s)
	}
	return ObjectID(v), nil
}

// BirthStamp is given at each allocation and reallocation of an object and
// never again. Checksums, log pages and handles bind to it, so that bytes of
// an object's former life are not taken for its own. Zero is none.
type BirthStamp uint64

// BlockSize is the unit of space on media and of data checksums, in bytes.
const BlockSize = 4096

// Extent is a run of whole zones on one drive.
type Extent struct {
	Drive  uint16 // the drive's slot in the pool's drive table
	Start  uint64 // in blocks of BlockSize from the drive's beginning
	Blocks uint32 // length in blocks of BlockSize
}

// Offset returns where the extent begins on its drive, in bytes.
func (e Extent) Offset() int64 { return int64(e.Start) * BlockSize }

// Size returns the extent's length in bytes.
func (e Extent) Size() int64 { return int64(e.Blocks) * BlockSize }

// End returns the block after the extent's last.
func (e Extent) End() uint64 { return e.Start + uint64(e.Blocks) }

// MaxInlineSums is how many data checksums an object's layout record carries
// itself. A longer mblock has them in checksum pages behind its data.
const MaxInlineSums = 16

// Object is the description of one object, as the metadata records it.
type Object struct {
	ID         ObjectID
	Birth      BirthStamp
	Extent     Extent
	Written    uint64   // mblock: bytes written, exact; mlog: 0
	Capacity   uint64   // bytes the user asked for: mblock data, mlog record bytes
	Owner      uint32   // index into the pool's owner table; 0 is the pool's own
	Tag        uint64   // the application's own
	Created    uint64   // Unix time in milliseconds
	Generation uint64   // mlog: raised by each erase, from 1; mblock: 0
	Partner    ObjectID // mlog of an MDC: the other log; else 0
	Sums       []uint32 // mblock of at most MaxInlineSums blocks: the CRC of each; else nil
}
