package scopes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// proves G1: SIGHUP puts limits of the file in force, raised, lowered below what is used, and
// taken out; a file that is wrong changes none. Lowered, what is held stays, can be used and
// given back, and what is new is refused.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	write := func(scopes string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("log_level = \"info\"\n"+scopes), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[scopes.client]\nmemory = '4MiB'\ndescriptors = 50\n")
	drive := daemon.Drive(t, 64<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Args: []string{"--config", file}})
	c, _ := d.Pool("data", drive, api.CreateOptions{Mode: 0o666})
	name := fmt.Sprintf("client:%d/%d", os.Geteuid(), os.Getpid())
	memory := func() (e client.ScopeInfo) {
		t.Helper()
		for i, err := range c.Scopes(t.Context(), name) {
			if err != nil {
				t.Fatal(err)
			}
			if i.Kind == "memory" {
				e = i
			}
		}
		return e
	}
	is := func(limit, origin string) {
		t.Helper()
		if e := memory(); e.Limit != limit || !strings.HasPrefix(e.Origin, origin) {
			t.Errorf("the limit is %s by %s, want %s by %s", e.Limit, e.Origin, limit, origin)
		}
	}
	hup := func() {
		t.Helper()
		n := strings.Count(d.Log(), "configuration ") // read again, or not
		d.Signal(syscall.SIGHUP)
		daemon.Eventually(t, "the configuration is read", func() bool { return strings.Count(d.Log(), "configuration ") > n })
	}
	w, err := daemon.Greeted(d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	pool, err := w.OpenPool("data")
	if err != nil {
		t.Fatal(err)
	}
	arena := func() error {
		_, _, err := w.Mapped(4 << 20)
		return err
	}
	refused := func(err error) {
		t.Helper()
		if !errors.Is(err, api.EAGAIN) || !strings.Contains(err.Error(), "[scopes.\"client\"] memory") {
			t.Errorf("%v", err)
		}
	}

	is("4194304", "file")
	refused(arena())
	write("[scopes.client]\nmemory = '64MiB'\n")
	hup()
	is("67108864", "file")
	if err := arena(); err != nil {
		t.Error(err)
	}
	b, err := w.Alloc(ioctl.OpMblockAlloc, pool, 1<<20)
	if err != nil {
		t.Fatal(err)
	}

	write("[scopes.client]\nmemory = '1MiB'\n")
	hup()
	is("1048576", "file")
	if e := memory(); e.Used < 4<<20 {
		t.Errorf("%d bytes are used", e.Used)
	}
	refused(arena())
	_, err = w.Ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: b})
	refused(err)
	if _, err := w.Ask(ioctl.OpObjectAbort, &ioctl.Target{Handle: b}); err != nil {
		t.Error(err)
	}

	write("[scopes.client]\nmemory = 'much'\n")
	hup()
	is("1048576", "file")

	write("")
	hup()
	if e := memory(); !strings.HasPrefix(e.Origin, "default") {
		t.Errorf("the limit is %s by %s", e.Limit, e.Origin)
	}
	if err := arena(); err != nil {
		t.Error(err)
	}
}
