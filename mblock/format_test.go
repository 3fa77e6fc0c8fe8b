package mblock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"testing"

	"github.com/mpool-go/mpool/layout"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

// goldenSums are the checksums of the golden page.
func goldenSums() []uint32 {
	sums := make([]uint32, 700)
	for i := range sums {
		sums[i] = uint32(i)*0x01000193 ^ 0xdeadbeef
	}
	return sums
}

const (
	goldenFile  = "testdata/page.golden"
	goldenBirth = layout.BirthStamp(0x0123456789abcdef)
	goldenIndex = 3
)

func TestPageGolden(t *testing.T) {
	page := make([]byte, blockSize)
	EncodePage(page, goldenBirth, goldenIndex, goldenSums())
	if *rewrite {
		if err := os.WriteFile(goldenFile, page, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, want) {
		t.Fatal("the page differs from the golden one: the media format has changed")
	}
	sums := make([]uint32, 700)
	if err := DecodePage(want, goldenBirth, goldenIndex, sums); err != nil {
		t.Fatal(err)
	}
	for i, s := range goldenSums() {
		if sums[i] != s {
			t.Fatalf("sum %d is %#x, want %#x", i, sums[i], s)
		}
	}
}

// TestSumIsPlainCRC32C computes checksums in the way the format says.
func TestSumIsPlainCRC32C(t *testing.T) {
	block := random(blockSize, 5)
	for _, birth := range []layout.BirthStamp{0, 1, goldenBirth, 1<<64 - 1} {
		for _, index := range []uint32{0, 1, 1015, 1<<32 - 1} {
			all := binary.LittleEndian.AppendUint64(nil, uint64(birth))
			all = binary.LittleEndian.AppendUint64(all, uint64(index))
			all = append(all, block...)
			if got, want := BlockSum(birth, index, block), crc32.Checksum(all, crc32.MakeTable(crc32.Castagnoli)); got != want {
				t.Errorf("birth %x block %d: %#x, want %#x", birth, index, got, want)
			}
		}
	}
}

func TestBlocksFor(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		want  uint32
	}{
		{0, 1},
		{1, 1},
		{4096, 1},
		{4097, 2},
		{16 * 4096, 16},
		{16*4096 + 1, 17 + 1},
		{1016 * 4096, 1016 + 1},
		{1017 * 4096, 1017 + 2},
		{32 << 20, 8192 + 9},
		{1 << 30, 262144 + 259},
	} {
		if got := BlocksFor(c.bytes); got != c.want {
			t.Errorf("BlocksFor(%d) = %d, want %d", c.bytes, got, c.want)
		}
	}
	for n := range int64(3000) {
		if BlocksFor(n*blockSize) > BlocksFor((n+1)*blockSize) {
			t.Errorf("%d blocks of data need more than %d", n, n+1)
		}
	}
}

// proves S14
func TestEveryFlippedBitOfAPageIsFound(t *testing.T) {
	page := make([]byte, blockSize)
	EncodePage(page, goldenBirth, goldenIndex, goldenSums())
	sums := make([]uint32, 700)
	for bit := range blockSize * 8 {
		page[bit/8] ^= 1 << (bit % 8)
		var e *PageError
		if err := DecodePage(page, goldenBirth, goldenIndex, sums); !errors.As(err, &e) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
		page[bit/8] ^= 1 << (bit % 8)
	}
	if DecodePage(page, goldenBirth+1, goldenIndex, sums) == nil ||
		DecodePage(page, goldenBirth, goldenIndex+1, sums) == nil ||
		DecodePage(page, goldenBirth, goldenIndex, sums[1:]) == nil ||
		DecodePage(page, goldenBirth, goldenIndex, make([]uint32, 701)) == nil ||
		DecodePage(page[1:], goldenBirth, goldenIndex, sums) == nil ||
		DecodePage(page, goldenBirth, goldenIndex, make([]uint32, 1017)) == nil {
		t.Error("the page passes for another")
	}
	if err := DecodePage(page, goldenBirth, goldenIndex, sums); err != nil {
		t.Fatal(err)
	}
}

// FuzzChecksumPage feeds pages, their CRC made right or not, to the decoder:
// what it takes is what the encoder would have written. Inputs are padded with
// zeros to a page: short ones are what the fuzzer is quick with.
func FuzzChecksumPage(f *testing.F) {
	page := make([]byte, blockSize)
	EncodePage(page, goldenBirth, goldenIndex, goldenSums()[:3])
	f.Add(page[:48], uint64(goldenBirth), uint32(goldenIndex), uint16(3), false)
	f.Add(page[:44], uint64(goldenBirth), uint32(goldenIndex), uint16(3), true)
	f.Add([]byte("mSm1\x01"), uint64(0), uint32(0), uint16(0), true)
	f.Fuzz(func(t *testing.T, b []byte, birth uint64, index uint32, count uint16, fix bool) {
		b = append(bytes.Clone(b), make([]byte, blockSize)...)[:blockSize]
		if fix {
			binary.LittleEndian.PutUint32(b, pageMagic)
			binary.LittleEndian.PutUint64(b[pageAtBirth:], birth)
			binary.LittleEndian.PutUint32(b[pageAtIndex:], index)
			binary.LittleEndian.PutUint32(b[pageAtCRC:], 0)
			binary.LittleEndian.PutUint32(b[pageAtCRC:], BlockSum(layout.BirthStamp(birth), index, b))
		}
		before := bytes.Clone(b)
		sums := make([]uint32, count%1100)
		err := DecodePage(b, layout.BirthStamp(birth), index, sums)
		if !bytes.Equal(b, before) {
			t.Fatal("the decoder changed the page")
		}
		if err != nil {
			return
		}
		again := make([]byte, blockSize)
		EncodePage(again, layout.BirthStamp(birth), index, sums)
		if !bytes.Equal(again, b) {
			t.Fatal("a page was taken that the encoder would not write")
		}
	})
}
