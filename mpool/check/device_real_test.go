package check_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

// A pool on a file, opened as the commands do it.
//
// proves S4 S45
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drive")
	do(t, os.WriteFile(path, nil, 0o600))
	do(t, os.Truncate(path, diskSize))
	o := mpool.Options{MetadataBytes: metaBytes}
	_, err := mpool.Create(bg, "pool", []string{path}, api.CreateOptions{}, o)
	do(t, err)
	p, err := mpool.Activate(bg, "pool", []string{path}, api.ActivateOptions{}, o)
	do(t, err)
	put(t, p, 10000)
	put(t, p, 3<<20)
	putLog(t, p, 60000, 100, 20000)

	_, err = check.Run(bg, []string{path}, check.Options{})
	if !errors.Is(err, api.EBUSY) {
		t.Fatalf("check of an active pool: %v, want EBUSY", err)
	}
	do(t, p.Close())

	before, err := os.ReadFile(path)
	do(t, err)
	var last, total int64
	r, err := check.Run(bg, []string{path}, check.Options{Data: true, Progress: func(done, all int64) {
		if done < last {
			t.Errorf("progress goes back from %d to %d", last, done)
		}
		last, total = done, all
	}})
	do(t, err)
	if !r.OK || len(r.Notes) > 0 || r.Mblocks != 2 || r.VerifiedBytes != 10000+3<<20 {
		t.Fatalf("%+v", r)
	}
	if last != total || total != r.VerifiedBytes {
		t.Fatalf("progress ended with %d of %d", last, total)
	}
	after, err := os.ReadFile(path)
	do(t, err)
	if string(before) != string(after) {
		t.Fatal("the check has changed the drive")
	}
}

// Devices that cannot be opened are errors, not findings.
func TestCannotLook(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	ended, cancel := context.WithCancel(bg)
	cancel()
	for _, c := range []struct {
		ctx   context.Context
		paths []string
		want  api.Code
	}{
		{bg, nil, api.EINVAL},
		{bg, []string{missing}, api.ENOENT},
		{bg, []string{os.DevNull}, api.EINVAL},
		{ended, []string{missing}, api.ECANCELED},
	} {
		if _, err := check.Run(c.ctx, c.paths, check.Options{}); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.paths, err, c.want)
		}
		if err := check.Dump(c.ctx, c.paths, check.Options{}, discard); !errors.Is(err, c.want) {
			t.Errorf("dump of %v: %v, want %v", c.paths, err, c.want)
		}
		if _, err := check.Repair(c.ctx, c.paths, check.Options{}); !errors.Is(err, c.want) {
			t.Errorf("repair of %v: %v, want %v", c.paths, err, c.want)
		}
	}
}

func discard(*check.Line) error { return nil }

// A dump ends where its lines are not wanted any more.
func TestDumpEnds(t *testing.T) {
	disk := newPool(t)
	full, n := errors.New("full"), 0
	err := check.Dump(bg, []string{"d0"}, check.Options{Open: opener(disk)}, func(*check.Line) error {
		if n++; n == 3 {
			return full
		}
		return nil
	})
	if !errors.Is(err, full) || n != 3 {
		t.Fatal(n, err)
	}
}
