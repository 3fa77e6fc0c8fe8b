package kill

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
	"github.com/mpool-go/mpool/test/faultfs"
	"github.com/mpool-go/mpool/test/loopdev"
)

// A delete is cut off by a kill. The library asks the next daemon, where another
// client deletes the same mblock, which a second kill undoes, too: the first client
// must not have been told that its delete is done.
//
// proves S15 S36
func TestDeleteThatTwoKillsTake(t *testing.T) {
	loopdev.RequireRoot(t)
	ctx := context.Background()
	th := &theatre{t: t, bin: build(t)}
	f := &stock{}
	var paths []string
	for i, d := range stocked(t, f) {
		th.drives = append(th.drives, faultfs.New(t, d.Size(), faultfs.Options{Disk: d, Seed: uint64(i)}))
		paths = append(paths, th.drives[i].Path)
	}
	id := f.mblocks[1]
	dir := t.TempDir()
	start := func(socket string) *testdaemon.Daemon {
		return testdaemon.Start(t, th.bin, testdaemon.Options{
			Config: config, Socket: filepath.Join(dir, socket), Args: []string{"--activate", "kill@" + strings.Join(paths, ",")},
		})
	}
	// lead has the first client come to another daemon.
	lead := func(socket string) {
		t.Helper()
		link := filepath.Join(dir, "new")
		if err := errors.Join(os.Symlink(socket, link), os.Rename(link, filepath.Join(dir, "first"))); err != nil {
			t.Fatal(err)
		}
	}
	open := func(socket string) (*client.Conn, api.Mblock) {
		t.Helper()
		c, err := client.Dial(ctx, client.Options{Socket: filepath.Join(dir, socket), Reconnect: testdaemon.Patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // its daemon may be gone
		p, err := c.OpenPool(ctx, "kill")
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.Mblock(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return c, m
	}
	// begin deletes the mblock; nothing of it comes to the drives.
	begin := func(m api.Mblock) (told chan error, freezer *faultfs.Freezer) {
		told, freezer = make(chan error, 1), faultfs.NewFreezer(0)
		th.freeze(freezer)
		go func() { told <- m.Delete(ctx) }()
		select {
		case <-freezer.Frozen():
		case err := <-told:
			t.Fatalf("the delete wrote nothing: %v", err)
		}
		return told, freezer
	}
	kill := func(d *testdaemon.Daemon, freezer *faultfs.Freezer) {
		d.Signal(syscall.SIGKILL)
		freezer.Thaw(func() bool { return false })
		testdaemon.Eventually(t, "the daemon ends", func() bool { return !d.Running() })
		th.freeze(nil)
	}

	d := start("a")
	lead("a")
	_, m := open("first")
	first, freezer := begin(m)
	kill(d, freezer)

	d = start("b")
	other, m := open("b")
	second, freezer := begin(m)
	finds := func() uint64 {
		all, err := other.Stat(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all.Ops, func(o client.OpCounters) bool { return o.Op == ioctl.OpMblockFind })
		return all.Ops[i].Count
	}
	had := finds()
	lead("b")
	testdaemon.Eventually(t, "the first client looks", func() bool { return finds() > had })
	kill(d, freezer)

	start("b")
	for who, told := range map[string]chan error{"first": first, "second": second} {
		select {
		case err := <-told:
			// EUNKNOWN is right as well, if the second kill took longer than a look's patience.
			if !errors.Is(err, api.ECONNRESET) && !errors.Is(err, api.EUNKNOWN) {
				t.Errorf("the %s client is told of its delete: %v", who, err)
			}
		case <-time.After(testdaemon.Patience):
			t.Fatalf("the %s client is told nothing", who)
		}
	}
	_, m = open("b") // it is there
	if err := m.Put(); err != nil {
		t.Error(err)
	}
}
