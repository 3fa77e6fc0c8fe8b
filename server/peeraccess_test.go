package server

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// Who may open, read, change and administer a pool is decided by its owner,
// group and mode.
//
// proves S44
func TestAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	ctx := context.Background()
	r := newRig(t)
	r.letOthersIn()
	c := r.dial()
	for name, o := range map[string]api.CreateOptions{
		"closed":   {Mode: 0o660},
		"mine":     {Mode: 0o600, UID: 65534},
		"group":    {Mode: 0o060, GID: 4242},
		"readable": {Mode: 0o644},
	} {
		must[api.CreateResult](t)(c.CreatePool(ctx, name, []string{"/dev/" + name}, o))
	}
	p := r.open(c)
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1}))
	if err := b.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	k := r.child("stranger")
	for _, line := range []string{
		"open closed EPERM", "stat closed EPERM",
		"open mine ok", "alloc mine ok", "realloc mine ok", "spare mine EPERM", "roots mine ok",
		"open group ok", "alloc group ok", "realloc group EPERM", "spare group EPERM", "roots group ok",
		"open readable ok", "alloc readable EPERM", "realloc readable EPERM", "spare readable EPERM", "roots readable EPERM",
		"open data ok", "alloc data ok", "realloc data EPERM", "spare data EPERM", "roots data ok",
		"delete data EBUSY",
		"pools [data group mine readable]",
		"create EPERM", "activate EPERM", "deactivate EPERM", "destroy EPERM", "rename EPERM", "set EPERM",
	} {
		got := k.line()
		if line == "delete data EBUSY" {
			// Both holders are counted; it is told its own process only.
			if got != line+" false:1 true:1" && got != line+" true:1 false:1" {
				t.Errorf("it says %q", got)
			}
			continue
		}
		if got != line {
			t.Errorf("it says %q, want %q", got, line)
		}
	}
	if err := k.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// letOthersIn lets other users find the socket.
func (r *rig) letOthersIn() {
	r.t.Helper()
	for dir := filepath.Dir(r.socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}
