package mblock

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// A block's checksum is CRC32C, whatever instructions compute it.
//
// proves S14
func TestSumIsCRC32C(t *testing.T) {
	n := rand.Uint64()
	t.Logf("seed %d", n)
	rng := rand.New(rand.NewPCG(n, 1))
	plain := func(s seed, index uint32, block []byte) uint32 {
		return crc32.Update(crcUint64(uint32(s), uint64(index)), castagnoli, block)
	}
	mem := make([]byte, 3*blockSize)
	for i := range 2000 {
		at := rng.IntN(2 * blockSize)
		block := mem[at : at+blockSize]
		switch i % 3 {
		case 0:
			for k := range block {
				block[k] = byte(rng.Uint32())
			}
		case 1:
			clear(block)
		case 2: // one bit
			block[rng.IntN(blockSize)] ^= 1 << rng.IntN(8)
		}
		s, index := seed(rng.Uint32()), rng.Uint32()
		want := plain(s, index, block)
		// What is fetched ahead may be beyond all memory.
		for _, got := range []uint32{s.sum(index, block, 0), s.sum(index, block, sumAhead), s.narrow(index, block)} {
			if got != want {
				t.Fatalf("%d: %#x, want %#x", i, got, want)
			}
		}
	}
	// Every bit counts, in every place.
	clear(mem)
	block := mem[:blockSize]
	for bit := range 8 * blockSize {
		block[bit/8] ^= 1 << (bit % 8)
		if got, want := seed(7).sum(9, block, 0), plain(7, 9, block); got != want {
			t.Fatalf("bit %d: %#x, want %#x", bit, got, want)
		}
		block[bit/8] ^= 1 << (bit % 8)
	}
}

func BenchmarkSum(b *testing.B) {
	mem := make([]byte, 1<<20)
	b.SetBytes(int64(len(mem)))
	for b.Loop() {
		for at := 0; at < len(mem); at += blockSize {
			seed(1).sum(uint32(at), mem[at:at+blockSize], sumAhead)
		}
	}
}
