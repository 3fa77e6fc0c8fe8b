package omf

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// ofDrives is the superblock of a pool of n drives, the last of the class
// staging, as drive slot has it.
func ofDrives(n int, slot uint16) *Superblock {
	sb := exampleSuperblock()
	sb.Compat, sb.Generation, sb.Drives = 0, 3, nil
	for i := range n {
		d := Drive{
			Slot: uint16(i), State: DriveOnline, ZoneLog2: 16, SectorLog2: 9 + 3*uint8(i%2), Size: int64(64+i) << 20,
			UUID: uuid.MustParse(fmt.Sprintf("0f0e0d0c-0b0a-4908-8706-%012d", i)),
		}
		if i == n-1 {
			d.Class = 1
		}
		d.EndCopy = d.Size - SuperblockSize
		sb.Drives = append(sb.Drives, d)
	}
	sb.Slot, sb.Drive = slot, sb.Drives[slot].UUID
	return sb
}

// Superblocks of pools of two and three drives have these bytes, and are read.
func TestGoldenOfSeveralDrives(t *testing.T) {
	for _, n := range []int{2, 3} {
		want := ofDrives(n, uint16(n-1))
		b := make([]byte, SuperblockSize)
		if err := want.Encode(b); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("superblock-v1-%d-drives", n)
		golden(t, name, b)
		got, err := Decode(image(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
}

// A record with the property shared has these bytes, and is read; other values
// of the kind are refused.
func TestGoldenShared(t *testing.T) {
	var r Record
	r.PropertyNumber(PropSpare, 5)
	r.PropertyNumber(PropShared, 1)
	golden(t, "record-v1-shared", r.Bytes())
	var last Op
	if err := DecodeRecord(image(t, "record-v1-shared"), func(op *Op) error { last = *op; return nil }); err != nil {
		t.Fatal(err)
	}
	if last.Property != PropShared || last.Value != 1 {
		t.Fatalf("%+v", last)
	}
	r.Reset()
	r.PropertyText(PropShared, "yes")
	if err := DecodeRecord(r.Bytes(), func(*Op) error { return nil }); err == nil {
		t.Error("a text passes for a number")
	}
}

// image returns the bytes of a golden image.
func image(t *testing.T, name string) []byte {
	t.Helper()
	dump, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for line := range strings.Lines(string(dump)) {
		offset, rest, ok := strings.Cut(line, "  ")
		if at, err := hex.DecodeString(offset); !ok || err != nil || len(at) != 4 {
			continue
		}
		digits, _, _ := strings.Cut(rest, "|")
		p, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, p...)
	}
	return b
}
