package omf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"

	"github.com/mpool-go/mpool/layout"
)

// The superblock's places and sizes, in bytes.
const (
	SuperblockSize   = 4096
	SecondCopyOffset = 1 << 20
	Copies           = 3
	MaxDrives        = 64
	MaxNameBytes     = 63

	driveTableOffset = 512
	driveEntrySize   = 48
	crcOffset        = SuperblockSize - 4
)

// Version is the format's version.
const Version = 1

var magic = [8]byte{'m', 'p', 'o', 'o', 'l', 'S', 'B', '1'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PoolState is a pool's state on media.
type PoolState uint32

// The states of a pool.
const (
	StateNormal    PoolState = 1
	StateDestroyed PoolState = 2 // destroyed; the copies are being wiped
)

// DriveState is a drive's state in the drive table.
type DriveState uint8

// The states of a drive.
const (
	DriveOnline  DriveState = 1
	DriveRemoved DriveState = 2 // the slot is spent
)

// Drive is an entry of the drive table.
type Drive struct {
	Slot       uint16
	Class      uint8
	State      DriveState
	ZoneLog2   uint8 // zone size = 1 << ZoneLog2 bytes, 16..26
	SectorLog2 uint8 // logical sector size, 9 or 12
	UUID       uuid.UUID
	Size       int64 // bytes of the device in use
	EndCopy    int64 // byte offset of the third superblock copy
}

// LogPlace says where one of the two metadata logs lies on the metadata drive.
type LogPlace struct {
	Birth  layout.BirthStamp
	Start  uint64 // in 4 KiB blocks
	Blocks uint32
}

// Superblock is a decoded superblock.
type Superblock struct {
	Copy       uint32 // 0, 1, 2: which of the three
	Pool       uuid.UUID
	Drive      uuid.UUID // the drive this copy lies on
	Generation uint64
	Epoch      uint64
	Incompat   uint64
	ROCompat   uint64
	Compat     uint64
	Name       string
	Slot       uint16 // of the drive this copy lies on
	State      PoolState
	Created    uint64 // Unix ms
	MetaSlot   uint16 // the drive that holds the metadata logs
	Logs       [2]LogPlace
	Drives     []Drive
}

// Errors of decoding. Each is wrapped with details.
var (
	// ErrNoSuperblock is returned when the bytes do not begin with the magic.
	ErrNoSuperblock = errors.New("no mpool superblock")
	// ErrBadSuperblock is returned when a superblock is damaged.
	ErrBadSuperblock = errors.New("damaged mpool superblock")
	// ErrVersion is returned for a format or an incompatible feature that this
	// version does not know.
	ErrVersion = errors.New("unknown mpool format")
)

var le = binary.LittleEndian

// Encode writes the superblock into b, of SuperblockSize bytes.
func (s *Superblock) Encode(b []byte) error {
	if len(b) != SuperblockSize {
		return fmt.Errorf("encode superblock: buffer of %d bytes", len(b))
	}
	if len(s.Drives) == 0 || len(s.Drives) > MaxDrives || len(s.Name) > MaxNameBytes {
		return fmt.Errorf("encode superblock: %d drives, name of %d bytes", len(s.Drives), len(s.Name))
	}
	clear(b)
	copy(b, magic[:])
	le.PutUint32(b[8:], Version)
	le.PutUint32(b[12:], s.Copy)
	copy(b[16:], s.Pool[:])
	copy(b[32:], s.Drive[:])
	le.PutUint64(b[48:], s.Generation)
	le.PutUint64(b[56:], s.Epoch)
	le.PutUint64(b[64:], s.Incompat)
	le.PutUint64(b[72:], s.ROCompat)
	le.PutUint64(b[80:], s.Compat)
	copy(b[88:152], s.Name)
	le.PutUint16(b[152:], s.Slot)
	le.PutUint16(b[154:], uint16(len(s.Drives)))
	le.PutUint32(b[156:], uint32(s.State))
	le.PutUint64(b[160:], s.Created)
	le.PutUint16(b[168:], s.MetaSlot)
	for i, l := range s.Logs {
		e := b[176+24*i:]
		le.PutUint64(e, uint64(l.Birth))
		le.PutUint64(e[8:], l.Start)
		le.PutUint32(e[16:], l.Blocks)
	}
	for i, d := range s.Drives {
		e := b[driveTableOffset+driveEntrySize*i:]
		le.PutUint16(e, d.Slot)
		e[2], e[3], e[4], e[5] = d.Class, uint8(d.State), d.ZoneLog2, d.SectorLog2
		copy(e[8:24], d.UUID[:])
		le.PutUint64(e[24:], uint64(d.Size))
		le.PutUint64(e[32:], uint64(d.EndCopy))
	}
	le.PutUint32(b[crcOffset:], crcOf(b))
	return nil
}

// Decode reads a superblock. Unknown feature bits are left to the caller: see
// KnownIncompat and KnownROCompat.
func Decode(b []byte) (*Superblock, error) {
	if len(b) != SuperblockSize || !bytes.Equal(b[:8], magic[:]) {
		return nil, ErrNoSuperblock
	}
	if got, want := crcOf(b), le.Uint32(b[crcOffset:]); got != want {
		return nil, fmt.Errorf("%w: checksum %08x, recorded %08x", ErrBadSuperblock, got, want)
	}
	if v := le.Uint32(b[8:]); v != Version {
		return nil, fmt.Errorf("%w: superblock version %d; this is version %d", ErrVersion, v, Version)
	}
	s := &Superblock{
		Copy:       le.Uint32(b[12:]),
		Pool:       uuid.UUID(b[16:32]),
		Drive:      uuid.UUID(b[32:48]),
		Generation: le.Uint64(b[48:]),
		Epoch:      le.Uint64(b[56:]),
		Incompat:   le.Uint64(b[64:]),
		ROCompat:   le.Uint64(b[72:]),
		Compat:     le.Uint64(b[80:]),
		Slot:       le.Uint16(b[152:]),
		State:      PoolState(le.Uint32(b[156:])),
		Created:    le.Uint64(b[160:]),
		MetaSlot:   le.Uint16(b[168:]),
	}
	if s.Incompat&^KnownIncompat != 0 {
		return nil, fmt.Errorf("%w: incompatible features %#x", ErrVersion, s.Incompat&^KnownIncompat)
	}
	name, rest, _ := bytes.Cut(b[88:152], []byte{0})
	s.Name = string(name)
	for i := range s.Logs {
		e := b[176+24*i:]
		s.Logs[i] = LogPlace{Birth: layout.BirthStamp(le.Uint64(e)), Start: le.Uint64(e[8:]), Blocks: le.Uint32(e[16:])}
		if le.Uint32(e[20:]) != 0 {
			return nil, fmt.Errorf("%w: reserved bytes of log %d are not zero", ErrBadSuperblock, i)
		}
	}
	n := int(le.Uint16(b[154:]))
	if n == 0 || n > MaxDrives {
		return nil, fmt.Errorf("%w: %d drives", ErrBadSuperblock, n)
	}
	for i := range n {
		d, err := decodeDrive(b[driveTableOffset+driveEntrySize*i:][:driveEntrySize])
		if err != nil {
			return nil, err
		}
		s.Drives = append(s.Drives, d)
	}
	if !zero(rest) || !zero(b[170:176]) || !zero(b[224:driveTableOffset]) ||
		!zero(b[driveTableOffset+driveEntrySize*n:crcOffset]) {
		return nil, fmt.Errorf("%w: reserved bytes are not zero", ErrBadSuperblock)
	}
	return s, s.validate()
}

// The feature bits that this version knows.
const (
	KnownIncompat uint64 = 0
	KnownROCompat uint64 = 0
)

func decodeDrive(e []byte) (Drive, error) {
	d := Drive{
		Slot: le.Uint16(e), Class: e[2], State: DriveState(e[3]), ZoneLog2: e[4], SectorLog2: e[5],
		UUID: uuid.UUID(e[8:24]), Size: int64(le.Uint64(e[24:])), EndCopy: int64(le.Uint64(e[32:])),
	}
	if !zero(e[6:8]) || !zero(e[40:48]) {
		return d, fmt.Errorf("%w: reserved bytes of drive %d are not zero", ErrBadSuperblock, d.Slot)
	}
	return d, nil
}

// validate checks what a checksum cannot: a superblock that was written wrong.
func (s *Superblock) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrBadSuperblock, fmt.Sprintf(format, args...))
	}
	if s.Copy >= Copies {
		return bad("copy number %d", s.Copy)
	}
	if s.State != StateNormal && s.State != StateDestroyed {
		return bad("pool state %d", s.State)
	}
	own, meta := false, false
	for i, d := range s.Drives {
		switch {
		case i > 0 && d.Slot <= s.Drives[i-1].Slot:
			return bad("drive table is not in order of slots")
		case d.ZoneLog2 < 16 || d.ZoneLog2 > 26:
			return bad("drive %d has zones of 2^%d bytes", d.Slot, d.ZoneLog2)
		case d.SectorLog2 != 9 && d.SectorLog2 != 12:
			return bad("drive %d has sectors of 2^%d bytes", d.Slot, d.SectorLog2)
		case d.State != DriveOnline && d.State != DriveRemoved:
			return bad("drive %d has state %d", d.Slot, d.State)
		case d.Size < SecondCopyOffset+2*SuperblockSize || d.Size > 1<<55 || d.Size%SuperblockSize != 0:
			return bad("drive %d has a size of %d bytes", d.Slot, d.Size)
		case d.EndCopy != d.Size-SuperblockSize:
			return bad("drive %d has its last superblock at %d of %d bytes", d.Slot, d.EndCopy, d.Size)
		}
		own = own || d.Slot == s.Slot && d.UUID == s.Drive
		if d.Slot == s.MetaSlot {
			meta = true
			for j, l := range s.Logs {
				if l.Blocks < 8 || l.Start > uint64(d.Size)/layout.BlockSize ||
					(l.Start+uint64(l.Blocks))*layout.BlockSize > uint64(d.Size) {
					return bad("metadata log %d lies at block %d, %d blocks long", j, l.Start, l.Blocks)
				}
			}
		}
	}
	if !own || !meta {
		return bad("the drive table lacks the drive itself or the metadata drive")
	}
	return nil
}

// crcOf returns the checksum of a superblock's bytes.
func crcOf(b []byte) uint32 { return crc32.Checksum(b[:crcOffset], castagnoli) }

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
