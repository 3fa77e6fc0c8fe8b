package mpool

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mpool-go/mpool/bdev"
)

// edge is how much of a device's beginning and end must be blank, in bytes.
const edge = 1 << 20

// signature is a mark that some owner of block devices leaves on them. The
// offsets and marks are those that blkid(8) knows.
type signature struct {
	name   string
	offset int
	mark   []byte
}

func signatures() []signature {
	s := []signature{
		{"mpool", 0, []byte("mpoolSB1")},
		{"mpool (kernel module)", 0, []byte("mpoolDev")},
		{"XFS", 0, []byte("XFSB")},
		{"ext2, ext3 or ext4", 0x438, []byte{0x53, 0xef}},
		{"Btrfs", 0x10040, []byte("_BHRfS_M")},
		{"LUKS", 0, []byte("LUKS\xba\xbe")},
		{"GPT partition table", 512, []byte("EFI PART")},
		{"GPT partition table", 4096, []byte("EFI PART")},
		{"swap space", 4086, []byte("SWAPSPACE2")},
		{"Linux RAID", 4096, []byte{0xfc, 0x4e, 0x2b, 0xa9}},
		{"Linux RAID", 0, []byte{0xfc, 0x4e, 0x2b, 0xa9}},
		{"F2FS", 1024, []byte{0x10, 0x20, 0xf5, 0xf2}},
		{"NTFS", 3, []byte("NTFS    ")},
		{"exFAT", 3, []byte("EXFAT   ")},
		{"ISO 9660", 32769, []byte("CD001")},
		{"SquashFS", 0, []byte("hsqs")},
		{"bcachefs or bcache", 4120, []byte{0xc6, 0x85, 0x73, 0xf6}},
		{"VDO", 0, []byte("dmvdo001")},
	}
	for sector := range 4 {
		s = append(s, signature{"LVM physical volume", 512 * sector, []byte("LABELONE")})
	}
	// Last, because boot sectors of file systems carry it too.
	return append(s, signature{"MBR partition table or boot sector", 510, []byte{0x55, 0xaa}})
}

// zfsMagic is the magic of a ZFS uberblock, of which a device's first label
// holds an array from 128 KiB on.
const zfsMagic = 0x00bab10c

// occupied names what a device carries in its first or last MiB, or "" if both
// are blank.
func occupied(ctx context.Context, d *bdev.Drive) (string, error) {
	size := d.Geometry().Size &^ 4095
	n := min(int64(edge), size)
	head, tail := make([]byte, n), make([]byte, n)
	if err := readAt(ctx, d, head, 0); err != nil {
		return "", err
	}
	if err := readAt(ctx, d, tail, size-n); err != nil {
		return "", err
	}
	for _, s := range signatures() {
		if len(head) >= s.offset+len(s.mark) && bytes.Equal(head[s.offset:s.offset+len(s.mark)], s.mark) {
			return s.name, nil
		}
	}
	for off := 128 << 10; off+8 <= len(head) && off < 256<<10; off += 1024 {
		if binary.LittleEndian.Uint64(head[off:]) == zfsMagic {
			return "ZFS", nil
		}
	}
	if bytes.Contains(tail, []byte("EFI PART")) {
		return "GPT partition table (at the end)", nil
	}
	if i := firstNonZero(head); i >= 0 {
		return fmt.Sprintf("unknown data at byte %d", i), nil
	}
	if i := firstNonZero(tail); i >= 0 {
		return fmt.Sprintf("unknown data at byte %d", size-n+int64(i)), nil
	}
	return "", nil
}

func firstNonZero(b []byte) int {
	// Almost always there is none: all are zero if the first is and each is like
	// the one before it.
	if len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) {
		return -1
	}
	for i, c := range b {
		if c != 0 {
			return i
		}
	}
	return -1
}
