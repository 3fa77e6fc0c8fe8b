package loopdev_test

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/test/loopdev"
)

const size = 64 << 20

// three makes a pool of two drives of the class capacity and one of the class
// staging, of both sector sizes, and returns their paths and the pool's UUID.
func three(t *testing.T, name string) (paths []string, uuid string) {
	t.Helper()
	for _, sector := range []int{512, 4096, 512} {
		paths = append(paths, loopdev.New(t, size, loopdev.Options{SectorSize: sector}).Path)
	}
	res, err := mpool.Create(t.Context(), name, paths[:2], api.CreateOptions{Staging: paths[2:]}, mpool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Drives) != 3 || res.OverheadBytes+res.UsableBytes != 3*size {
		t.Errorf("%+v", res)
	}
	return paths, res.UUID
}

// store commits mblocks of both classes until each of the pool's drives has
// some, and a log with records of each.
func store(t *testing.T, p *mpool.Pool) map[layout.ObjectID][]byte {
	t.Helper()
	objects := make(map[layout.ObjectID][]byte)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		class := api.Class(i % 2)
		data := make([]byte, rng.IntN(200_000))
		for k := range data {
			data[k] = byte(rng.Uint32())
		}
		b, err := p.AllocMblock(t.Context(), api.AllocOptions{Capacity: int64(len(data)), Class: class})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Write(t.Context(), data)
		if err := errors.Join(err, b.Commit(t.Context()), b.Put()); err != nil {
			t.Fatal(err)
		}
		objects[b.ID()] = data
	}
	return objects
}

func verify(t *testing.T, p *mpool.Pool, objects map[layout.ObjectID][]byte) {
	t.Helper()
	for id, data := range objects {
		b, err := p.Mblock(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		n, err := b.ReadAt(got, 0)
		if n != len(data) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
			t.Errorf("object %v of %d bytes: read %d, %v", id, len(data), n, err)
		}
		if err := b.Put(); err != nil {
			t.Error(err)
		}
	}
}

func activate(t *testing.T, name string, paths []string, o api.ActivateOptions) *mpool.Pool {
	t.Helper()
	p, err := mpool.Activate(t.Context(), name, paths, o, mpool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func end(t *testing.T, p *mpool.Pool) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// A pool of three real devices lives through its life: found in any order, by
// name, by UUID, among all devices of the host; renamed, read without a drive,
// destroyed.
//
// proves S3 S5
func TestPoolOfThreeDevices(t *testing.T) {
	name := "loop-" + strings.ToLower(crand.Text())
	paths, uuid := three(t, name)
	p := activate(t, uuid, []string{paths[2], paths[0], paths[1]}, api.ActivateOptions{})
	objects := store(t, p)
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range info.Drives {
		if d.Path != paths[i] || d.Size != size || d.State != "online" || d.Free > 65_000_000 {
			t.Errorf("drive %d: %+v", i, d)
		}
	}
	if err := p.Rename(t.Context(), name+"-b"); err != nil {
		t.Fatal(err)
	}
	end(t, p)
	name += "-b"

	p = activate(t, name, nil, api.ActivateOptions{}) // among all devices of the host
	verify(t, p, objects)
	end(t, p)

	if _, err := mpool.Activate(t.Context(), name, paths[:2], api.ActivateOptions{}, mpool.Options{}); !errors.Is(err, api.ESTATE) {
		t.Errorf("without the third drive: %v", err)
	}
	p = activate(t, name, paths[:2], api.ActivateOptions{Force: true})
	missing := 0
	for id := range objects {
		b, err := p.Mblock(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = b.ReadAt(make([]byte, 1), 0); errors.Is(err, api.EIO) {
			missing++
		}
		if err := b.Put(); err != nil {
			t.Error(err)
		}
	}
	if missing != 20 {
		t.Errorf("%d objects lie on the missing drive", missing)
	}
	end(t, p)

	p = activate(t, name, paths, api.ActivateOptions{})
	verify(t, p, objects)
	if err := p.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := mpool.Activate(t.Context(), name, paths, api.ActivateOptions{}, mpool.Options{}); !errors.Is(err, api.ENOENT) {
		t.Errorf("after its destruction: %v", err)
	}
	if _, err := mpool.Create(t.Context(), name, paths, api.CreateOptions{}, mpool.Options{}); err != nil {
		t.Errorf("the drives of a destroyed pool: %v", err)
	}
}

// proves S1 S4: one device by two paths is refused, and so are a drive of an
// active pool and one with a signature; nothing is written then.
func TestDevicesThatAreRefused(t *testing.T) {
	name := "loop-" + strings.ToLower(crand.Text())
	paths, _ := three(t, name)
	fresh := []string{loopdev.New(t, size, loopdev.Options{}).Path, loopdev.New(t, size, loopdev.Options{}).Path}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(fresh[0], link); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		devices []string
		want    api.Code
		says    string
	}{
		{[]string{fresh[0], fresh[1], link}, api.EINVAL, "same device"},
		{[]string{fresh[0], fresh[0]}, api.EINVAL, "twice"},
		{[]string{fresh[0], paths[1], fresh[1]}, api.ESTATE, paths[1]},
	} {
		_, err := mpool.Create(ctx, "other", c.devices, api.CreateOptions{}, mpool.Options{})
		if api.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.says) {
			t.Errorf("create on %v: %v, want %v", c.devices, err, c.want)
		}
	}
	if _, err := mpool.Create(ctx, "other", fresh, api.CreateOptions{}, mpool.Options{}); err != nil {
		t.Errorf("the devices are not blank any more: %v", err)
	}
	// Devices that others hold do not matter unless they are the pool's.
	p := activate(t, name, append(slices.Clone(fresh), paths...), api.ActivateOptions{})
	q := activate(t, "other", append(slices.Clone(paths), fresh...), api.ActivateOptions{})
	end(t, q)
	end(t, p)
}
