package mlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev/sim"
)

// mutation is one step of a fuzzed script: 6 bytes.
type mutation struct {
	op, page, arg byte
	at            uint16
	value         byte
}

// mutate applies a script to the image of an extent. It says whether a page got
// a checksum that nobody computed for what was appended.
func mutate(image, script []byte) (forged bool) {
	pages := len(image) / PageSize
	for ; len(script) >= 6; script = script[6:] {
		m := mutation{script[0], script[1], script[2], binary.LittleEndian.Uint16(script[3:]), script[5]}
		b := image[int(m.page)%pages*PageSize:][:PageSize]
		at := int(m.at) % PageSize
		switch m.op % 6 {
		case 0:
			b[at] ^= m.value
		case 1:
			copy(b, image[int(m.arg)%pages*PageSize:][:PageSize]) // misdirected
		case 2:
			clear(b)
		case 3:
			clear(b[at&^511:]) // torn
		case 4: // a field of the header, or of a fragment's, under a good checksum
			b[at%(HeaderSize+FragmentHeader)] ^= m.value
			binary.LittleEndian.PutUint32(b[offCRC:], PageCRC(b))
			forged = true
		case 5: // chained to another page
			copy(b[offPrev:offPrev+4], image[int(m.arg)%pages*PageSize:][offCRC:offCRC+4])
			binary.LittleEndian.PutUint32(b[offCRC:], PageCRC(b))
			forged = true
		}
	}
	return forged
}

// proves S23, S43
//
// Whatever is found in a log's extent, opening it ends, with an error or with
// records that were appended, up to the end of a group.
func FuzzRecovery(f *testing.F) {
	type start struct {
		image []byte
		ends  []uint64
	}
	var starts []start
	list, want, c := moments(f)
	ends := []uint64{0}
	for _, m := range list {
		ends = append(ends, m.records)
		image := make([]byte, c.Extent.Size())
		if _, err := m.disk.ReadAt(image, c.Extent.Offset()); err != nil {
			f.Fatal(err)
		}
		starts = append(starts, start{image, slices.Clone(ends)})
	}
	for i := range starts {
		for page := range byte(12) {
			f.Add(byte(i), []byte{0, page, 0, 80, 0, 1})
			f.Add(byte(i), []byte{4, page, 0, offIndex, 0, 1, 5, page + 1, page, 0, 0, 0})
			f.Add(byte(i), []byte{1, page, page + 1, 0, 0, 0, 2, page + 2, 0, 0, 0, 0})
		}
	}
	f.Fuzz(func(t *testing.T, which byte, script []byte) {
		s := starts[int(which)%len(starts)]
		image := bytes.Clone(s.image)
		forged := mutate(image, script[:min(len(script), 120)])
		disk := sim.NewDisk(c.Extent.Offset()+c.Extent.Size(), sim.DiskOptions{})
		overwrite(disk, c.Extent.Offset(), image)
		drive, err := sim.Open(nil, disk, sim.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := c
		c.Drive, c.Epoch = drive, 1<<40
		var found [][]byte
		c.Replay = func(_ uint64, b []byte) error {
			found = append(found, bytes.Clone(b))
			return nil
		}
		l, err := Open(bg, c)
		if err != nil {
			if code := api.CodeOf(err); code != api.ECORRUPT && code != api.ESTALE {
				t.Fatal(err)
			}
			return
		}
		defer mustAbandon(l)
		if !forged {
			if !slices.Contains(s.ends, uint64(len(found))) {
				t.Fatalf("%d records: no group ended there", len(found))
			}
			if err := sameRecords(found, want[:len(found)]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := readAll(l, ReaderOptions{})
		if err != nil && !errors.Is(err, api.ECORRUPT) {
			t.Fatal(err)
		}
		if err := sameRecords(got, found[:len(got)]); err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendSync(bg, []byte("more")); err != nil && !errors.Is(err, api.EFBIG) {
			t.Fatal(err)
		}
	})
}
