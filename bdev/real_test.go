package bdev_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/bdevtest"
	"github.com/mpool-go/mpool/test/loopdev"
)

const testSize = 16 << 20

// makeFile makes a regular file for a drive.
func makeFile(tb testing.TB, dir string, size int64) string {
	tb.Helper()
	path := filepath.Join(dir, "drive")
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		tb.Fatal(err)
	}
	return path
}

func open(tb testing.TB, path string, o bdev.OpenOptions) *bdev.Drive {
	tb.Helper()
	d, err := bdev.Open(context.Background(), nil, path, o)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// shmDir makes a directory on tmpfs for the life of a test.
func shmDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bdev-test-*")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// places are the kinds of real device, each with a function that makes one.
var places = []struct {
	name string
	make func(tb testing.TB) string
}{
	{"file", func(tb testing.TB) string { tb.Helper(); return makeFile(tb, tb.TempDir(), testSize) }},
	{"tmpfs", func(tb testing.TB) string { tb.Helper(); return makeFile(tb, shmDir(tb), testSize) }},
	{"loop512", func(tb testing.TB) string { tb.Helper(); return loopdev.New(tb, testSize, loopdev.Options{}).Path }},
	{"loop4096", func(tb testing.TB) string {
		tb.Helper()
		return loopdev.New(tb, testSize, loopdev.Options{SectorSize: 4096, Dir: "/dev/shm"}).Path
	}},
}

var engines = []bdev.EngineKind{bdev.URing, bdev.Pread}

func TestConformance(t *testing.T) {
	for _, p := range places {
		for _, kind := range engines {
			t.Run(p.name+"/"+kind.String(), func(t *testing.T) {
				path := p.make(t)
				bdevtest.Run(t, func(t *testing.T) *bdev.Drive {
					t.Helper()
					// A small queue, so that it is full at times.
					return open(t, path, bdev.OpenOptions{Engine: kind, QueueDepth: 64, MaxWorkers: 8})
				})
			})
		}
	}
}
