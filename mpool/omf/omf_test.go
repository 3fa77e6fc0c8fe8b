package omf

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mpool-go/mpool/layout"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden images")

func exampleSuperblock() *Superblock {
	return &Superblock{
		Copy: 1, Pool: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"),
		Drive:      uuid.MustParse("0f0e0d0c-0b0a-0908-0706-050403020100"),
		Generation: 7, Epoch: 1 << 40, Compat: 1 << 63, Name: "data", State: StateNormal, Created: 1767225600000,
		Logs: [2]LogPlace{{Birth: 1<<63 | 4, Start: 257, Blocks: 256}, {Birth: 1<<63 | 5, Start: 513, Blocks: 256}},
		Drives: []Drive{
			{
				Slot: 0, State: DriveOnline, ZoneLog2: 16, SectorLog2: 12, Size: 64 << 20, EndCopy: 64<<20 - 4096,
				UUID: uuid.MustParse("0f0e0d0c-0b0a-0908-0706-050403020100"),
			},
			{
				Slot: 3, Class: 1, State: DriveRemoved, ZoneLog2: 20, SectorLog2: 9, Size: 1 << 40, EndCopy: 1<<40 - 4096,
				UUID: uuid.MustParse("ffffffff-0b0a-0908-0706-050403020100"),
			},
		},
	}
}

func exampleRecord() []byte {
	var r Record
	r.Create(&layout.Object{
		ID: layout.NewObjectID(layout.KindMblock, 5), Birth: 9, Written: 5000, Capacity: 1 << 20, Owner: 2, Tag: 77,
		Created: 1767225600123, Sums: []uint32{0xdeadbeef, 1}, Extent: layout.Extent{Drive: 0, Start: 768, Blocks: 16},
	})
	r.Create(&layout.Object{
		ID: layout.NewObjectID(layout.KindMlog, 6), Birth: 10, Capacity: 1 << 20, Generation: 3,
		Partner: layout.NewObjectID(layout.KindMlog, 7), Extent: layout.Extent{Drive: 3, Start: 784, Blocks: 272},
	})
	r.Delete(layout.NewObjectID(layout.KindMblock, 1), 2)
	r.Erase(layout.NewObjectID(layout.KindMlog, 6), 10, 4)
	r.Update(layout.NewObjectID(layout.KindMblock, 5), 9, 3, 78)
	r.Relocate(layout.NewObjectID(layout.KindMblock, 5), 9, layout.Extent{Drive: 3, Start: 16, Blocks: 16})
	r.Root("main", layout.NewObjectID(layout.KindMlog, 6))
	r.Root("old", 0)
	r.Owner(1, 0, "tenant")
	r.Drive(&exampleSuperblock().Drives[1])
	r.PropertyNumber(PropMode, 0o660)
	r.PropertyText(PropLabel, "rack 7")
	r.Counter(4097, 4098)
	return r.Bytes()
}

// golden compares bytes with an image kept in testdata, as a hex dump: images
// of a released version must stay readable.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *rewrite {
		if err := os.WriteFile(path, []byte(hex.Dump(got)), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), hex.Dump(got)); diff != "" {
		t.Fatalf("%s: the bytes of version 1 changed (-want +got):\n%s", name, diff)
	}
}

func TestGolden(t *testing.T) {
	b := make([]byte, SuperblockSize)
	if err := exampleSuperblock().Encode(b); err != nil {
		t.Fatal(err)
	}
	golden(t, "superblock-v1", b)
	golden(t, "record-v1", exampleRecord())
	golden(t, "record-v1-unflushed", unflushedRecord(1))
}

// unflushedRecord creates an mblock of so many blocks whose data was not flushed.
func unflushedRecord(blocks int) []byte {
	var r Record
	r.Counter(6, 10)
	r.CreateUnflushed(&layout.Object{
		ID: layout.NewObjectID(layout.KindMblock, 5), Birth: 9, Written: uint64(blocks) * layout.BlockSize, Capacity: 1 << 20,
		Sums: make([]uint32, blocks), Extent: layout.Extent{Drive: 0, Start: 768, Blocks: 32},
	})
	return r.Bytes()
}

// Only a create that has its checksums can say that its data was not flushed.
func TestUnflushed(t *testing.T) {
	find := func(b []byte) (found bool, err error) {
		err = DecodeRecord(b, func(op *Op) error {
			found = found || op.Unflushed
			return nil
		})
		return found, err
	}
	if found, err := find(unflushedRecord(2)); err != nil || !found {
		t.Errorf("unflushed %v, %v", found, err)
	}
	if found, err := find(exampleRecord()); err != nil || found {
		t.Errorf("unflushed %v, %v", found, err)
	}
	if _, err := find(unflushedRecord(0)); !errors.Is(err, ErrBadRecord) {
		t.Errorf("an unflushed create without checksums: %v", err)
	}
	// The bit in any other operation's header, and any other bit.
	b := exampleRecord()
	for at, n := recordHeader, 0; at < len(b); n++ {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[at+1] |= 1 << bit
			if _, err := find(c); (err == nil) != (n == 0 && bit == 0) {
				t.Errorf("operation %d with bit %d: %v", n, bit, err)
			}
		}
		at += opHeader + int(le.Uint16(b[at+2:]))
	}
}

func TestSuperblockRoundTrip(t *testing.T) {
	want := exampleSuperblock()
	b := make([]byte, SuperblockSize)
	if err := want.Encode(b); err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// proves S2: a superblock is wholly under its checksum.
func TestSuperblockEveryFlipIsFound(t *testing.T) {
	b := make([]byte, SuperblockSize)
	if err := exampleSuperblock().Encode(b); err != nil {
		t.Fatal(err)
	}
	for bit := range SuperblockSize * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(b); err == nil {
			t.Fatalf("flip of bit %d is not found", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// proves S2: unknown feature words refuse, allow reading, are ignored.
func TestFeatureWords(t *testing.T) {
	b := make([]byte, SuperblockSize)
	for _, c := range []struct {
		name  string
		set   func(*Superblock)
		wants error
	}{
		{"incompat", func(s *Superblock) { s.Incompat = 1 }, ErrVersion},
		{"ro compat", func(s *Superblock) { s.ROCompat = 1 }, nil},
		{"compat", func(s *Superblock) { s.Compat = 1 }, nil},
	} {
		sb := exampleSuperblock()
		c.set(sb)
		if err := sb.Encode(b); err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); !errors.Is(err, c.wants) {
			t.Errorf("%s: Decode = %v", c.name, err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	b := exampleRecord()
	var again Record
	err := DecodeRecord(b, func(op *Op) error {
		o := &op.Object
		switch op.Type {
		case OpCreate:
			again.Create(o)
		case OpDelete:
			again.Delete(o.ID, o.Birth)
		case OpErase:
			again.Erase(o.ID, o.Birth, o.Generation)
		case OpUpdate:
			again.Update(o.ID, o.Birth, o.Owner, o.Tag)
		case OpRelocate:
			again.Relocate(o.ID, o.Birth, o.Extent)
		case OpRoot:
			again.Root(op.Name, o.ID)
		case OpOwner:
			again.Owner(op.Index, op.Parent, op.Name)
		case OpDrive:
			again.Drive(&op.Drive)
		case OpProperty:
			if op.Property == PropLabel {
				again.PropertyText(op.Property, op.Name)
			} else {
				again.PropertyNumber(op.Property, op.Value)
			}
		case OpCounter:
			again.Counter(op.NextID, op.Birth)
		}
		return nil
	})
	if err != nil || !bytes.Equal(b, again.Bytes()) {
		t.Fatalf("%v; %d and %d bytes", err, len(b), len(again.Bytes()))
	}
}

func TestRecordCutOff(t *testing.T) {
	b := exampleRecord()
	for n := range len(b) {
		if err := DecodeRecord(b[:n], func(*Op) error { return nil }); !errors.Is(err, ErrBadRecord) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if err := DecodeRecord(append(b, 0), func(*Op) error { return nil }); err == nil || !strings.Contains(err.Error(), "behind") {
		t.Fatal(err)
	}
}

func FuzzSuperblock(f *testing.F) {
	b := make([]byte, SuperblockSize)
	if err := exampleSuperblock().Encode(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == SuperblockSize { // give the fuzzer a chance behind the checksum
			b = bytes.Clone(b)
			copy(b, magic[:])
			sum := crcOf(b)
			le.PutUint32(b[crcOffset:], sum)
		}
		s, err := Decode(b)
		if err != nil {
			return
		}
		again := make([]byte, SuperblockSize)
		if err := s.Encode(again); err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if !bytes.Equal(b, again) {
			t.Fatal("decoding forgot some bytes")
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(exampleRecord())
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := DecodeRecord(b, func(op *Op) error {
			n++
			if op.Type == OpCreate && !op.Object.ID.Valid() {
				t.Fatal("an object without an id")
			}
			return nil
		})
		if err == nil && n != int(le.Uint16(b[2:])) {
			t.Fatalf("%d operations of %d", n, le.Uint16(b[2:]))
		}
	})
}
