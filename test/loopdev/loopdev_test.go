package loopdev

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDevicesOfBothSectorSizes(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		d := New(t, 1<<20, Options{SectorSize: sector})
		f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil || n != sector {
			t.Errorf("sector size %d, %v, want %d", n, err, sector)
		}
		want := bytes.Repeat([]byte{0xab}, 4096)
		if _, err := f.WriteAt(want, 8192); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(d.Backing)
		if err != nil || !bytes.Equal(got[8192:12288], want) {
			t.Errorf("the backing file does not hold what was written: %v", err)
		}
		f.Close()
		d.Detach(t)
		if _, err := os.Stat(filepath.Join("/sys/block", filepath.Base(d.Path), "loop/backing_file")); err == nil {
			// Somebody else may have taken the number since.
			b, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.Path), "loop/backing_file"))
			if bytes.Contains(b, []byte(filepath.Base(d.Backing))) {
				t.Errorf("%s is still attached", d.Path)
			}
		}
	}
}

func TestManyAtOnceGetDifferentDevices(t *testing.T) {
	RequireRoot(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	t.Run("group", func(t *testing.T) {
		for range 8 {
			t.Run("one", func(t *testing.T) {
				t.Parallel()
				d := New(t, 1<<20, Options{})
				mu.Lock()
				defer mu.Unlock()
				if seen[d.Backing] {
					t.Errorf("%s was given twice", d.Backing)
				}
				seen[d.Backing] = true
			})
		}
	})
}
