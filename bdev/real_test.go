package bdev_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/bdevtest"
	"github.com/mpool-go/mpool/test/loopdev"
)

const testSize = 16 << 20

// makeFile makes a regular file for a drive.
func makeFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, "drive")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string, o bdev.OpenOptions) *bdev.Drive {
	t.Helper()
	d, err := bdev.Open(context.Background(), nil, path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// places are the kinds of real device, each with a function that makes one.
var places = []struct {
	name string
	make func(t testing.TB) string
}{
	{"file", func(t testing.TB) string { return makeFile(t, t.TempDir(), testSize) }},
	{"tmpfs", func(t testing.TB) string {
		dir, err := os.MkdirTemp("/dev/shm", "bdev-test-*")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return makeFile(t, dir, testSize)
	}},
	{"loop512", func(t testing.TB) string { return loopdev.New(t, testSize, loopdev.Options{}).Path }},
	{"loop4096", func(t testing.TB) string {
		return loopdev.New(t, testSize, loopdev.Options{SectorSize: 4096, Dir: "/dev/shm"}).Path
	}},
}

var engines = []bdev.EngineKind{bdev.URing, bdev.Pread}

func TestConformance(t *testing.T) {
	for _, p := range places {
		for _, kind := range engines {
			t.Run(p.name+"/"+kind.String(), func(t *testing.T) {
				path := p.make(t)
				bdevtest.Run(t, func(t *testing.T) *bdev.Drive {
					// A small queue, so that it is full at times.
					return open(t, path, bdev.OpenOptions{Engine: kind, QueueDepth: 64, MaxWorkers: 8})
				})
			})
		}
	}
}
