package check_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
	"github.com/mpool-go/mpool/mpool/omf"
)

// Several devices, and one that is not what it was.
//
// proves S45
func TestDevices(t *testing.T) {
	f := newFixture(t)
	resized := func(size int64) *devsim.Disk {
		d := devsim.NewDisk(size, devsim.DiskOptions{})
		b := make([]byte, min(size, diskSize))
		_, err := f.disk.ReadAt(b, 0)
		do(t, err)
		write(t, d, b, 0)
		return d
	}
	other := devsim.NewDisk(diskSize, devsim.DiskOptions{WriteThrough: true})
	o := options(other)
	o.Rand = dice{rand.New(rand.NewPCG(8, 9))}
	_, err := mpool.Create(bg, "other", []string{"x"}, api.CreateOptions{}, o)
	do(t, err)
	apart := *f
	apart.disk = f.disk.Clone()
	apart.putSuperblocks(t, func(sb *omf.Superblock) {
		sb.Generation--
		sb.Drives[0].UUID[0] ^= 1
		sb.Drive = sb.Drives[0].UUID
	})
	blank := devsim.NewDisk(diskSize, devsim.DiskOptions{})
	var out strings.Builder
	for _, c := range []struct {
		name            string
		disks           []*devsim.Disk
		problems, notes string
	}{
		{"twice", []*devsim.Disk{f.disk, f.disk.Clone()}, check.DeviceTwice, ""},
		{"of another pool", []*devsim.Disk{f.disk, other}, check.DeviceForeign, ""},
		{"of a drive that is not in the table", []*devsim.Disk{f.disk, apart.disk}, check.DeviceForeign, ""},
		{"blank", []*devsim.Disk{f.disk, blank}, check.SuperblockNone, ""},
		{"blank alone", []*devsim.Disk{blank}, check.SuperblockNone, ""},
		{"tiny", []*devsim.Disk{devsim.NewDisk(4096, devsim.DiskOptions{})}, check.SuperblockDamaged + " " + check.SuperblockNone, ""},
		{"grown", []*devsim.Disk{resized(diskSize + 5<<20)}, "", check.DeviceGrown},
		{"shrunk", []*devsim.Disk{resized(diskSize - 4096)}, check.DeviceSmall, check.SuperblockDamaged},
	} {
		r := run(t, c.disks...)
		if got := codes(r.Problems); got != c.problems {
			t.Errorf("%s: problems %q, want %q: %v", c.name, got, c.problems, r.Problems)
		}
		if got := codes(r.Notes); got != c.notes {
			t.Errorf("%s: notes %q, want %q: %v", c.name, got, c.notes, r.Notes)
		}
		fmt.Fprintf(&out, "%s\n", c.name)
		for _, p := range append(r.Problems, r.Notes...) {
			fmt.Fprintf(&out, "  %v\n", p)
		}
	}
	golden(t, "device.golden", plainText(out.String()))
}

// Every code is in the package comment and has a test that brings it about.
func TestEveryCode(t *testing.T) {
	src, err := os.ReadFile("doc.go")
	do(t, err)
	comment, constants, _ := strings.Cut(string(src), "\npackage check")
	var found strings.Builder
	files, err := filepath.Glob("testdata/*.golden")
	do(t, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		do(t, err)
		found.Write(b)
	}
	list := regexp.MustCompile(`= "([a-z-]+)"`).FindAllStringSubmatch(constants, -1)
	if len(list) < 40 {
		t.Fatalf("%d codes", len(list))
	}
	for _, m := range list {
		if !regexp.MustCompile(`(?m)^//\t` + m[1] + ` `).MatchString(comment) {
			t.Errorf("%s is not explained", m[1])
		}
		if !regexp.MustCompile(`(?m)^  (note )?` + m[1] + `\b`).MatchString(found.String()) {
			t.Errorf("%s is never brought about", m[1])
		}
	}
}
