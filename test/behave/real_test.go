package behave_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/test/behave"
	"github.com/mpool-go/mpool/test/loopdev"
)

const poolBytes = 64 << 20

// inProcess runs each case on a device of its own.
type inProcess struct {
	device func(t *testing.T) string
	engine bdev.EngineKind
}

func (b inProcess) options() mpool.Options {
	return mpool.Options{Open: func(ctx context.Context, path string, readOnly bool) (*bdev.Drive, error) {
		return bdev.Open(ctx, nil, path, bdev.OpenOptions{ReadOnly: readOnly, Shared: readOnly, Engine: b.engine})
	}}
}

func (b inProcess) Run(t *testing.T, f func(e *behave.Env)) {
	t.Helper()
	ctx := context.Background()
	path := b.device(t)
	if _, err := mpool.Create(ctx, "p", []string{path}, api.CreateOptions{}, b.options()); err != nil {
		t.Fatal(err)
	}
	e := &behave.Env{T: t, Ctx: ctx}
	open := func() api.Pool {
		p, err := mpool.Activate(ctx, "p", []string{path}, api.ActivateOptions{}, b.options())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	e.Pool = open()
	defer func() {
		if err := e.Pool.(*mpool.Pool).Abandon(ctx); err != nil {
			t.Error(err)
		}
	}()
	e.Reopen = func() api.Pool {
		if err := e.Pool.(*mpool.Pool).Abandon(ctx); err != nil {
			t.Fatal(err)
		}
		return open()
	}
	f(e)
	if err := e.Pool.(*mpool.Pool).Close(); err != nil && !errors.Is(err, api.EBUSY) {
		t.Error(err)
	}
	e.Pool = open() // what the deferred Abandon ends
}

// file makes a sparse file on the disk.
func file(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(".", "behave") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "drive")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, poolBytes); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFile(t *testing.T) {
	t.Run("io_uring", func(t *testing.T) { behave.Run(t, inProcess{file, bdev.URing}) })
	t.Run("pread", func(t *testing.T) { behave.Run(t, inProcess{file, bdev.Pread}) })
}

func TestLoopDevice(t *testing.T) {
	loopdev.RequireRoot(t)
	for _, sector := range []int{512, 4096} {
		t.Run(map[int]string{512: "512", 4096: "4096"}[sector], func(t *testing.T) {
			behave.Run(t, inProcess{engine: bdev.Auto, device: func(t *testing.T) string {
				t.Helper()
				return loopdev.New(t, poolBytes, loopdev.Options{SectorSize: sector}).Path
			}})
		})
	}
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}
