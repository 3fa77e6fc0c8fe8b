package sim

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content returns a medium's bytes, unreadable pages as 0xff.
func content(m *medium, pages int64) []byte {
	var all []byte
	for i := range pages {
		p, bad := m.page(i)
		switch {
		case bad:
			all = append(all, bytes.Repeat([]byte{0xff}, pageSize)...)
		case p == nil:
			all = append(all, make([]byte, pageSize)...)
		default:
			all = append(all, p[:]...)
		}
	}
	return all
}

// A medium and all its clones behave as separate arrays of bytes.
func TestMediumAndClonesAreArrays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = chunkPages + 3
		type pair struct {
			m     *medium
			bytes []byte
			bad   map[int64]bool
		}
		all := []*pair{{newMedium(pages * pageSize), make([]byte, pages*pageSize), map[int64]bool{}}}
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for range steps {
			x := rapid.SampledFrom(all).Draw(t, "medium")
			index := rapid.Int64Range(0, pages-1).Draw(t, "page")
			at := x.bytes[index*pageSize : (index+1)*pageSize]
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				c := &pair{x.m.clone(), bytes.Clone(x.bytes), map[int64]bool{}}
				for k := range x.bad {
					c.bad[k] = true
				}
				all = append(all, c)
			case 1, 2:
				mask := sectorMask(rapid.SampledFrom([]int{0xff, 0xff, 0x01, 0x80, 0x3c, 0}).Draw(t, "mask"))
				data := new(page)
				fill := byte(rapid.IntRange(1, 200).Draw(t, "fill"))
				for i := range data {
					data[i] = fill
				}
				if fill%5 == 0 {
					data = nil
				}
				x.m.apply(piece{index: index, mask: mask, data: data})
				for i := range at {
					if mask>>(i/sectorSize)&1 == 0 {
						continue
					}
					if data == nil {
						at[i] = 0
					} else {
						at[i] = fill
					}
				}
				if mask == allSectors {
					delete(x.bad, index)
				}
			case 3:
				x.m.ownPage(index)[5] ^= 1
				at[5] ^= 1
			case 4:
				x.m.setBad(index)
				x.bad[index] = true
			}
		}
		for i, x := range all {
			want := bytes.Clone(x.bytes)
			for k := range x.bad {
				copy(want[k*pageSize:], bytes.Repeat([]byte{0xff}, pageSize))
			}
			if !bytes.Equal(content(x.m, pages), want) {
				t.Fatalf("medium %d differs from its model", i)
			}
		}
	})
}

func TestMaskOf(t *testing.T) {
	for _, c := range []struct {
		from, to int64
		want     sectorMask
	}{
		{0, 4096, 0xff}, {0, 512, 1}, {512, 1024, 2}, {3584, 4096, 0x80}, {1, 2, 1}, {511, 513, 3}, {0, 0, 0},
	} {
		if got := maskOf(c.from, c.to); got != c.want {
			t.Errorf("maskOf(%d, %d) = %08b, want %08b", c.from, c.to, got, c.want)
		}
	}
}
