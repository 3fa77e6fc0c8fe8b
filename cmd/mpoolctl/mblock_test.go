package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
)

// makeTree makes a directory of files with sizes around the edges of blocks
// and buffers, and returns it.
func makeTree(t *testing.T, files int) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.NewChaCha8([32]byte{byte(files)})
	sizes := []int{0, 1, 4095, 4096, 4097, 70000, putBuffer - 1, putBuffer, putBuffer + 1, 3*putBuffer + 5}
	for i := range files {
		data := make([]byte, sizes[i%len(sizes)])
		if i >= len(sizes) {
			data = data[:len(data)%5000]
		}
		if _, err := rng.Read(data); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("f %d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o640+fs.FileMode(i%2)*0o100); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readTree maps a directory's regular files to their mode and data.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = info.Mode().String() + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestPutAndRestoreDirectory(t *testing.T) {
	src, work := makeTree(t, 3000), t.TempDir()
	if err := os.Symlink("f 0", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(src, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newFakeDaemon("data")
	manifest := filepath.Join(work, "m")
	r := ctl(t, d, "", "--json", "mblock", "put", "data", src, "--manifest", manifest, "--tag", "7", "--owner", "me")
	if r.code != exitDone {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{"link: a symbolic link", "pipe: a named pipe"} {
		if !strings.Contains(r.errOut, want) {
			t.Errorf("no note %q in %q", want, r.errOut)
		}
	}
	entries := decode[[]map[string]any](t, r.out)
	if len(entries) != 3000 {
		t.Fatalf("%d entries", len(entries))
	}
	if m := missingFields(entries[0], "path id length capacity class"); m != nil {
		t.Errorf("no %v", m)
	}
	committed, uncommitted, refs := d.pools["data"].count()
	if committed != 3000 || uncommitted != 0 || refs != 0 {
		t.Errorf("%d committed, %d uncommitted, %d references", committed, uncommitted, refs)
	}
	if n := len(d.pools["data"].commits); n > 2500 {
		t.Logf("%d commits: hardly any were shared", n)
	}
	if _, err := os.Stat(manifest + ".partial"); err == nil {
		t.Error("the partial manifest stayed")
	}
	out := filepath.Join(work, "out")
	ok(t, d, "mblock", "get", "data", "--manifest", manifest, "-o", out)
	if err := os.Remove(filepath.Join(src, "pipe")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, src), readTree(t, out)); diff != "" {
		t.Error("what was restored is not what was stored")
	}
	if _, _, refs := d.pools["data"].count(); refs != 0 {
		t.Errorf("%d references are left", refs)
	}
}

func TestPutSplits(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1000) // 16000 bytes
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"file": {file}, "stdin": {"-"}, "nothing": nil} {
		d := newFakeDaemon("data")
		r := ctl(t, d, string(data), append([]string{"--quiet", "mblock", "put", "data", "--split", "4KiB"}, args...)...)
		ids := strings.Fields(r.out)
		if r.code != exitDone || len(ids) != 4 {
			t.Fatalf("%s: %+v", name, r)
		}
		if got := ok(t, d, append([]string{"mblock", "get", "data"}, ids...)...); got != string(data) {
			t.Errorf("%s: read back %d other bytes", name, len(got))
		}
		got := ok(t, d, append([]string{"mblock", "get", "data", "--offset", "4000", "--length", "9000"}, ids...)...)
		if got != string(data[4000:13000]) {
			t.Errorf("%s: range of %d bytes is wrong", name, len(got))
		}
	}
}

func TestPutStreamOfUnknownLength(t *testing.T) {
	for _, size := range []int{0, 4096, streamStart - 1, streamStart, 2*streamStart + 4097} {
		d := newFakeDaemon("data")
		data := strings.Repeat("x1y2", size/4+1)[:size]
		// A reader that gives odd pieces, as a pipe does.
		r := ctlContext(t.Context(), d, io.MultiReader(strings.NewReader(data[:size/3]), strings.NewReader(data[size/3:])),
			"--json", "mblock", "put", "data", "-")
		if r.code != exitDone {
			t.Fatalf("%d bytes: %+v", size, r.errOut)
		}
		v := decode[[]putView](t, r.out)
		if len(v) != 1 || v[0].Length != int64(size) {
			t.Fatalf("%d bytes: %+v", size, v)
		}
		if size < streamStart && v[0].Capacity != int64(size) {
			t.Errorf("%d bytes got a capacity of %d", size, v[0].Capacity)
		}
		if got := ok(t, d, "mblock", "get", "data", v[0].ID); got != data {
			t.Errorf("%d bytes: read back %d other bytes", size, len(got))
		}
	}
}

// A put that fails leaves no object, no manifest and nothing uncommitted.
func TestPutFailsWhole(t *testing.T) {
	for name, spoil := range map[string]func(p *fakePool){
		"write":  func(p *fakePool) { p.failWrite, p.okWrites = api.Errorf(api.EIO, "mblock write", "drive failed"), 700 },
		"commit": func(p *fakePool) { p.failCommit, p.okCommits = api.Errorf(api.ENOSPC, "commit", "metadata is full"), 1 },
	} {
		src := makeTree(t, 1500)
		d := newFakeDaemon("data")
		spoil(d.pools["data"])
		manifest := filepath.Join(t.TempDir(), "m")
		r := ctl(t, d, "", "mblock", "put", "data", src, "--manifest", manifest)
		if r.code != exitFailed {
			t.Errorf("%s: %+v", name, r)
		}
		if c, u, _ := d.pools["data"].count(); c != 0 || u != 0 {
			t.Errorf("%s: %d committed and %d uncommitted objects are left", name, c, u)
		}
		if left, err := filepath.Glob(manifest + "*"); err != nil || left != nil {
			t.Errorf("%s: %v is left", name, left)
		}
	}
}

// When the daemon is gone, what was stored stays and is listed.
func TestPutFailsWithoutDaemon(t *testing.T) {
	src := makeTree(t, 1500)
	d := newFakeDaemon("data")
	p := d.pools["data"]
	p.failWrite, p.okWrites = api.Errorf(api.ECONNRESET, "mblock write", "the connection to the daemon is gone"), 700
	p.failDelete = p.failWrite
	p.committed = make(chan struct{}) // something must be stored before
	manifest := filepath.Join(t.TempDir(), "m")
	r := ctl(t, d, "", "mblock", "put", "data", src, "--manifest", manifest)
	if r.code != exitFailed || !strings.Contains(r.errOut, manifest+".partial") {
		t.Fatalf("%+v", r)
	}
	f, err := os.Open(manifest + ".partial")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := readManifest(f)
	if err != nil {
		t.Fatal(err)
	}
	committed, _, _ := p.count()
	if len(entries) == 0 || len(entries) != committed {
		t.Errorf("%d files are listed, %d are committed", len(entries), committed)
	}
	if r := ctl(t, d, "", "mblock", "put", "data", src, "--manifest", manifest); r.code != exitFailed {
		t.Errorf("a second put wrote over the list: %+v", r)
	}
}

func TestPutInterrupted(t *testing.T) {
	d := newFakeDaemon("data")
	ctx, cancel := context.WithCancelCause(t.Context())
	// The stream goes on for ever; the interrupt comes while it does.
	in := &endlessReader{after: func() { cancel(api.Errorf(api.ECANCELED, "", "interrupted")) }}
	r := ctlContext(ctx, d, in, "mblock", "put", "data", "--split", "64KiB")
	if r.code != exitFailed || !strings.Contains(r.errOut, "interrupted (ECANCELED)") {
		t.Errorf("%+v", r)
	}
	if c, u, _ := d.pools["data"].count(); c != 0 || u != 0 {
		t.Errorf("%d committed and %d uncommitted objects are left", c, u)
	}
}

type endlessReader struct {
	n     int
	after func()
}

func (r *endlessReader) Read(p []byte) (int, error) {
	if r.n++; r.n == 50 {
		r.after()
	}
	return len(p), nil
}

func TestGetToFile(t *testing.T) {
	d := newFakeDaemon("data")
	id := strings.TrimSpace(ctl(t, d, "hello", "--quiet", "mblock", "put", "data").out)
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	ok(t, d, "mblock", "get", "data", "0x"+id, "-o", file)
	if got, err := os.ReadFile(file); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	r := ctl(t, d, "", "mblock", "get", "data", id, "0100000000000fff", "-o", filepath.Join(dir, "g"))
	if r.code != exitFailed || !strings.Contains(r.errOut, "(ENOENT)") {
		t.Errorf("%+v", r)
	}
	if got := readTree(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", maps.Keys(got))
	}
}

func TestListShowDelete(t *testing.T) {
	d := newFakeDaemon("data")
	for range 3 {
		ctl(t, d, "hello", "mblock", "put", "data", "--tag", "0x10")
	}
	ctl(t, d, "hello", "mblock", "put", "data", "--owner", "tenant")
	lines := strings.Split(strings.TrimSpace(ok(t, d, "--json", "mblock", "list", "data", "--tag", "16")), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	v := decode[map[string]any](t, lines[0])
	if m := missingFields(v, "id state length capacity class owner refs created"); m != nil {
		t.Errorf("list: no %v", m)
	}
	if got := ok(t, d, "-q", "mblock", "list", "data", "--owner", "tenant"); got != "0100000000000004\n" {
		t.Errorf("of the owner: %q", got)
	}
	shown := decode[objectView](t, ok(t, d, "--json", "mblock", "show", "data", "100000000000001"))
	want := objectView{
		ID: "0100000000000001", Kind: "mblock", State: "committed", Length: 5, Capacity: 5, Class: "capacity",
		Owner: "pool", Tag: 16, Created: "2023-11-14T22:13:20Z",
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Error(diff)
	}
	r := ctl(t, d, "", "--json", "mblock", "delete", "data", shown.ID)
	if r.code != exitUsage {
		t.Errorf("delete without --yes: %+v", r)
	}
	got := ok(t, d, "--json", "--yes", "mblock", "delete", "data", shown.ID)
	if got != `[{"id":"0100000000000001","deleted":true}]`+"\n" {
		t.Errorf("delete: %s", got)
	}
}

func TestBusyDeleteNamesHolders(t *testing.T) {
	d := newFakeDaemon("data")
	id := strings.TrimSpace(ctl(t, d, "x", "--quiet", "mblock", "put", "data").out)
	p := d.pools["data"]
	for _, o := range p.objects {
		o.refs++
	}
	r := ctl(t, d, "", "--json", "--yes", "mblock", "delete", "data", id)
	v := decode[map[string]failureView](t, r.out)["error"]
	if r.code != exitFailed || v.Code != "EBUSY" || v.Object != id || len(v.Holders) != 1 || v.Holders[0].PID != 4711 {
		t.Errorf("%+v", v)
	}
	if _, _, refs := p.count(); refs != 1 {
		t.Errorf("%d references are left", refs)
	}
}
