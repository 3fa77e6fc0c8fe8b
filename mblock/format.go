package mblock

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/mpool-go/mpool/layout"
)

// blockSize is the unit of data, of checksum pages and of I/O, in bytes.
const blockSize = layout.BlockSize

// The form of a checksum page; see the package comment.
const (
	pageMagic   = 0x316d536d // "mSm1"
	pageVersion = 1

	pageAtVersion = 4
	pageAtBirth   = 8
	pageAtIndex   = 16
	pageAtCount   = 20
	pageAtZero    = 24
	pageAtCRC     = 28
	pageAtSums    = 32

	// PageSums is how many checksums a checksum page holds.
	PageSums = 1016
)

// A page is a block, exactly.
var _ [0]struct{} = [blockSize - pageAtSums - 4*PageSums]struct{}{}

// castagnoli is CRC32C's table; read only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dataBlocks returns how many blocks the data of a written length takes.
func dataBlocks(written int64) uint32 { return uint32((written + blockSize - 1) / blockSize) }

// pagesFor returns how many checksum pages follow so many data blocks.
func pagesFor(blocks uint32) uint32 {
	if blocks <= layout.MaxInlineSums {
		return 0
	}
	return (blocks + PageSums - 1) / PageSums
}

// sumsIn returns how many checksums page index of an mblock of so many data
// blocks holds.
func sumsIn(blocks, index uint32) uint32 { return min(blocks-index*PageSums, PageSums) }

// BlocksFor returns how many blocks an mblock of a length takes: its data and
// its checksum pages. It is at least 1, so that every mblock has an extent.
// capacity must be 0 to api.MaxMblockCapacity bytes.
func BlocksFor(capacity int64) uint32 {
	n := dataBlocks(capacity)
	return max(n+pagesFor(n), 1)
}

// seed is the CRC32C of a birth stamp, with which all checksums of an object
// begin.
type seed uint32

func seedOf(birth layout.BirthStamp) seed { return seed(crcUint64(0, uint64(birth))) }

// crcUint64 adds 8 bytes to a CRC32C. It exists because crc32.Update makes the
// bytes escape to the heap.
func crcUint64(crc uint32, v uint64) uint32 {
	crc = ^crc
	for range 8 {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
		v >>= 8
	}
	return ^crc
}

// sumAhead is how far behind a block memory is fetched while it is summed, in
// bytes: what comes from a device is in no cache.
const sumAhead = blockSize

// sum returns the checksum of a block at a place. ahead is sumAhead if what
// follows in memory will be summed next, else 0: to fetch it would be a quarter of
// what a block costs.
func (s seed) sum(index uint32, block []byte, ahead uintptr) uint32 {
	if wide && len(block) == blockSize {
		return sumWide(uint32(s), uint64(index), &block[0], ahead)
	}
	return s.narrow(index, block)
}

// narrow is sum by what every processor has.
func (s seed) narrow(index uint32, block []byte) uint32 {
	warm(block)
	return crc32.Update(crcUint64(uint32(s), uint64(index)), castagnoli, block)
}

// cacheLine is the size of what a processor reads from memory at a time, or less.
const cacheLine = 64

// warm reads a byte of every cache line, in the order of their addresses. What a
// device has written is in no cache, and crc32 reads a block at three places in
// turn, which the processor's own prefetching does not follow: a cold block takes
// a quarter to two thirds longer without this, a warm one a tenth more with it.
//
//go:noinline
func warm(block []byte) byte {
	var all byte
	for i := 0; i < len(block); i += cacheLine {
		all |= block[i]
	}
	return all
}

// BlockSum returns the checksum of a data block of 4096 bytes: the index-th of
// the object with that birth stamp.
func BlockSum(birth layout.BirthStamp, index uint32, block []byte) uint32 {
	return seedOf(birth).sum(index, block, 0)
}

// EncodePage fills page, of 4096 bytes, with up to PageSums checksums: the
// index-th page of the object with that birth stamp.
func EncodePage(page []byte, birth layout.BirthStamp, index uint32, sums []uint32) {
	page = page[:blockSize:blockSize]
	clear(page)
	binary.LittleEndian.PutUint32(page, pageMagic)
	page[pageAtVersion] = pageVersion
	binary.LittleEndian.PutUint64(page[pageAtBirth:], uint64(birth))
	binary.LittleEndian.PutUint32(page[pageAtIndex:], index)
	binary.LittleEndian.PutUint32(page[pageAtCount:], uint32(len(sums)))
	at := page[pageAtSums:]
	for i, s := range sums {
		binary.LittleEndian.PutUint32(at[4*i:], s)
	}
	binary.LittleEndian.PutUint32(page[pageAtCRC:], seedOf(birth).sum(index, page, 0))
}

// PageError says why a block is not the checksum page that it should be. Want
// and Got are the values of the first field that differs.
type PageError struct {
	Field     string
	Want, Got uint64
}

func (e *PageError) Error() string {
	return fmt.Sprintf("checksum page: %s is %#x, want %#x", e.Field, e.Got, e.Want)
}

// DecodePage fills sums from a page of 4096 bytes, which must be the index-th
// of the object with that birth stamp and hold exactly len(sums) checksums, at
// most PageSums. Errors are *PageError; page is left as it was.
func DecodePage(page []byte, birth layout.BirthStamp, index uint32, sums []uint32) error {
	if len(page) != blockSize || len(sums) > PageSums {
		return &PageError{Field: "length", Want: blockSize, Got: uint64(len(page))}
	}
	le := binary.LittleEndian
	crc := crcUint64(uint32(seedOf(birth)), uint64(index))
	crc = crc32.Update(crc, castagnoli, page[:pageAtCRC])
	for range 4 {
		crc = ^(castagnoli[byte(^crc)] ^ ^crc>>8)
	}
	crc = crc32.Update(crc, castagnoli, page[pageAtSums:])
	fields := [...]struct {
		name      string
		want, got uint64
	}{
		{"magic", pageMagic, uint64(le.Uint32(page))},
		{"birth stamp", uint64(birth), le.Uint64(page[pageAtBirth:])},
		{"place", uint64(index), uint64(le.Uint32(page[pageAtIndex:]))},
		{"checksum", uint64(crc), uint64(le.Uint32(page[pageAtCRC:]))},
		{"version", pageVersion, uint64(le.Uint32(page[pageAtVersion:]))},
		{"number of checksums", uint64(len(sums)), uint64(le.Uint32(page[pageAtCount:]))},
		{"reserved field", 0, uint64(le.Uint32(page[pageAtZero:]))},
		{"unused space", 0, used(page[pageAtSums+4*len(sums):])},
	}
	for _, f := range fields {
		if f.got != f.want {
			return &PageError{Field: f.name, Want: f.want, Got: f.got}
		}
	}
	for i := range sums {
		sums[i] = le.Uint32(page[pageAtSums+4*i:])
	}
	return nil
}

// used returns the first of the bytes that is not zero, or 0.
func used(p []byte) uint64 {
	for _, b := range p {
		if b != 0 {
			return uint64(b)
		}
	}
	return 0
}
