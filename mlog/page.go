package mlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// The format's numbers. Sizes in bytes.
const (
	PageSize       = layout.BlockSize      // a page, the unit of everything in a log
	HeaderSize     = 72                    // a page's header
	PayloadSize    = PageSize - HeaderSize // what a page has for fragments
	FragmentHeader = 8                     // before the data of each fragment
	MaxRecord      = api.MaxRecord         // the longest record

	SlotPages = 4 // tail slots at the extent's beginning: pair A, pair B
	PairPages = 2 // each pair: the same page twice

	Magic   = 0x31674c6d // "mLg1"
	Version = 1
)

// The flags of a page.
const (
	FlagTail  = 1 << 0 // a tail slot, not a final page
	FlagClean = 1 << 1 // written by a clean close

	knownFlags = FlagTail | FlagClean
)

// Where the fields of a page's header are.
const (
	offMagic      = 0
	offVersion    = 4
	offFlags      = 5
	offUsed       = 6
	offBirth      = 8
	offGeneration = 16
	offEpoch      = 24
	offGroup      = 32
	offDurable    = 40
	offFirst      = 48
	offIndex      = 56
	offPrev       = 60
	offCRC        = 64
	offReserved   = 68
	offPayload    = 72
)

// What the format's arithmetic rests on.
const (
	_ = uint(offPayload - HeaderSize)      // the header ends where the payload begins,
	_ = uint(HeaderSize - offPayload)      // and begins where the header ends
	_ = uint(PageSize - 4096)              // a page is 4096 bytes,
	_ = uint(4096 - PageSize)              // not more
	_ = uint(1<<16 - 1 - PayloadSize)      // a length in a page fits 16 bits
	_ = uint(1<<32 - 1 - int64(MaxRecord)) // a record's length fits 32 bits
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrPage is wrapped by every error of [DecodePage]: the bytes are no valid
// page of the log. The error says why.
var ErrPage = errors.New("not a valid log page")

func pageErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrPage}, args...)...)
}

// Header is the header of a page.
type Header struct {
	Flags      uint8
	Used       uint16 // payload bytes in use; the others are zero
	Birth      layout.BirthStamp
	Generation uint64 // of the log, raised by each erase
	Epoch      uint64 // of the activation that wrote the page
	Group      uint64 // the write group that wrote the page, from 1
	Durable    uint64 // the highest group known durable when the page was written
	First      uint64 // number of the record that the first fragment belongs to; without one, of the next record
	Index      uint32 // the final page that this is, or that a tail will become
	Prev       uint32 // CRC of the final page before; 0 for the first
}

// Tail says whether the page is a tail slot.
func (h *Header) Tail() bool { return h.Flags&FlagTail != 0 }

// Clean says whether a clean close wrote the page.
func (h *Header) Clean() bool { return h.Flags&FlagClean != 0 }

// put writes the header but for the CRC. b is a whole page.
func (h *Header) put(b []byte) {
	_ = b[PageSize-1]
	le := binary.LittleEndian
	le.PutUint32(b[offMagic:], Magic)
	b[offVersion] = Version
	b[offFlags] = h.Flags
	le.PutUint16(b[offUsed:], h.Used)
	le.PutUint64(b[offBirth:], uint64(h.Birth))
	le.PutUint64(b[offGeneration:], h.Generation)
	le.PutUint64(b[offEpoch:], h.Epoch)
	le.PutUint64(b[offGroup:], h.Group)
	le.PutUint64(b[offDurable:], h.Durable)
	le.PutUint64(b[offFirst:], h.First)
	le.PutUint32(b[offIndex:], h.Index)
	le.PutUint32(b[offPrev:], h.Prev)
	le.PutUint32(b[offReserved:], 0)
}

func (h *Header) get(b []byte) {
	_ = b[PageSize-1]
	le := binary.LittleEndian
	h.Flags = b[offFlags]
	h.Used = le.Uint16(b[offUsed:])
	h.Birth = layout.BirthStamp(le.Uint64(b[offBirth:]))
	h.Generation = le.Uint64(b[offGeneration:])
	h.Epoch = le.Uint64(b[offEpoch:])
	h.Group = le.Uint64(b[offGroup:])
	h.Durable = le.Uint64(b[offDurable:])
	h.First = le.Uint64(b[offFirst:])
	h.Index = le.Uint32(b[offIndex:])
	h.Prev = le.Uint32(b[offPrev:])
}

// PageCRC computes the CRC of a whole page: CRC32C of birth stamp and index,
// then of the page with its CRC field zero.
func PageCRC(b []byte) uint32 {
	_ = b[PageSize-1]
	// The seed is what the header says; whoever reads a page compares both
	// fields with what he expects.
	crc := crc32.Update(0, castagnoli, b[offBirth:offBirth+8])
	crc = crc32.Update(crc, castagnoli, b[offIndex:offIndex+4])
	crc = crc32.Update(crc, castagnoli, b[:offCRC])
	crc = ^crc
	for range offReserved - offCRC { // zero bytes
		crc = castagnoli[byte(crc)] ^ crc>>8
	}
	crc = ^crc
	return crc32.Update(crc, castagnoli, b[offReserved:PageSize])
}

// seal writes the header and the CRC of a page whose payload is in place, zero
// behind h.Used, and returns the CRC.
func (h *Header) seal(b []byte) uint32 {
	h.put(b)
	crc := PageCRC(b)
	binary.LittleEndian.PutUint32(b[offCRC:], crc)
	return crc
}

// Page is a decoded page.
type Page struct {
	Header
	CRC     uint32
	Payload []byte // the used part, within the decoded bytes

	Fragments int  // how many there are
	Continues bool // the first fragment continues a record of an earlier page
	Open      bool // the last fragment is not the end of its record
	Bytes     int  // record data in the page
}

// NextFirst returns what Header.First of the final page after this one must be:
// the number of the record that is open at the end, or of the next one.
func (p *Page) NextFirst() uint64 {
	n := p.First + uint64(p.Fragments)
	if p.Open {
		n--
	}
	return n
}

// DecodePage checks everything about a page that can be checked without others
// and gives its parts; the payload is not copied. birth is the log's. The
// caller compares Generation and, for a final page, Index and Prev with what
// they must be. b must be one page. The error wraps [ErrPage].
func DecodePage(b []byte, birth layout.BirthStamp) (Page, error) {
	var p Page
	err := p.decode(b, birth)
	return p, err
}

func (p *Page) decode(b []byte, birth layout.BirthStamp) error {
	if len(b) != PageSize {
		return pageErrorf("%d bytes", len(b))
	}
	le := binary.LittleEndian
	if m := le.Uint32(b[offMagic:]); m != Magic {
		return pageErrorf("magic number %08x", m)
	}
	p.get(b)
	if p.Birth != birth {
		return pageErrorf("birth stamp %016x, want %016x", uint64(p.Birth), uint64(birth))
	}
	p.CRC = le.Uint32(b[offCRC:])
	if want := PageCRC(b); p.CRC != want {
		return pageErrorf("CRC %08x, want %08x", p.CRC, want)
	}
	switch {
	case b[offVersion] != Version:
		return pageErrorf("version %d", b[offVersion])
	case p.Flags&^knownFlags != 0, p.Clean() && !p.Tail():
		return pageErrorf("flags %02x", p.Flags)
	case le.Uint32(b[offReserved:]) != 0:
		return pageErrorf("reserved bytes are not zero")
	case p.Group == 0 || p.Durable >= p.Group:
		return pageErrorf("group %d knows group %d as durable", p.Group, p.Durable)
	case p.Index == 0 && p.Prev != 0:
		return pageErrorf("first page has a predecessor")
	case p.Used > PayloadSize:
		return pageErrorf("%d bytes used", p.Used)
	}
	// All are zero if the first is and each is like the one before it.
	if rest := b[offPayload+int(p.Used):]; len(rest) > 0 && (rest[0] != 0 || !bytes.Equal(rest[1:], rest[:len(rest)-1])) {
		return pageErrorf("bytes behind the used ones are not zero")
	}
	p.Payload = b[offPayload : offPayload+int(p.Used)]
	return p.checkFragments()
}

// checkFragments checks the fragments' structure and counts them.
func (p *Page) checkFragments() error {
	p.Fragments, p.Bytes, p.Continues, p.Open = 0, 0, false, false
	for at := 0; at < len(p.Payload); p.Fragments++ {
		f, err := decodeFragment(p.Payload, at)
		if err != nil {
			return err
		}
		switch {
		case f.continues() && at != 0:
			return pageErrorf("fragment at %d continues a record of this page", at)
		case f.continues():
			p.Continues = true
		}
		at += FragmentHeader + len(f.Data)
		if f.open() {
			if at != PayloadSize {
				return pageErrorf("record goes on behind a page that is not full")
			}
			p.Open = true
		}
		p.Bytes += len(f.Data)
	}
	left := PayloadSize - len(p.Payload)
	switch {
	case p.Tail() && (left < FragmentHeader || p.Open):
		return pageErrorf("tail is full")
	case !p.Tail() && left > FragmentHeader:
		return pageErrorf("final page has room for %d bytes", left)
	case p.Continues && p.First == 0 && p.Index == 0:
		return pageErrorf("first page continues a record")
	}
	return nil
}
