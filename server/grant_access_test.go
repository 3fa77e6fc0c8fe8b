package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
)

// An object is handed over to who may have it, by its owner and the pool's mode. To
// others its token is as one that was never given, and they do not use it up.
//
// proves S35 S44
func TestAcceptIsForWhoMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	x := newTenants(t, newEngineRig(t))
	ctx := context.Background()
	for _, c := range []struct {
		uid   int
		reach string // owners
	}{{0, "01234"}, {poolUID, "01234"}, {2001, "23"}, {2002, "123"}, {2003, "234"}, {2004, ""}, {2006, "0"}} {
		k := x.r.actor(c.uid)
		never := k.says("accept", api.Token{1})
		for owner := range uint32(owners) {
			b := must[api.Mblock](t)(x.admin.AllocMblock(ctx, api.AllocOptions{Capacity: 4096, Owner: owner}))
			token := must[api.Token](t)(b.Grant(ctx, time.Minute))
			want := never
			if strings.Contains(c.reach, fmt.Sprint(owner)) {
				want = "ok"
			}
			if got := k.says("accept", token); got != want {
				t.Errorf("user %d, owner %d: %s, want %s", c.uid, owner, got, want)
			}
			if want == "ok" {
				continue
			}
			if err := must[api.Object](t)(x.admin.Accept(ctx, token)).Abort(ctx); err != nil {
				t.Error(err)
			}
		}
		if never != "ENOENT" {
			t.Errorf("user %d, a token that was never given: %s", c.uid, never)
		}
		k.kill()
	}
	// Who may only read takes nothing, and is not told whether it could be.
	c := x.r.dial()
	if err := c.SetPool(ctx, "data", api.PoolSettings{Mode: new(uint32(0o644))}); err != nil {
		t.Fatal(err)
	}
	k := x.r.actor(2006)
	b := must[api.Mblock](t)(x.admin.AllocMblock(ctx, api.AllocOptions{Capacity: 4096}))
	for _, token := range []api.Token{{1}, must[api.Token](t)(b.Grant(ctx, time.Minute))} {
		if got := k.says("accept", token); got != "EPERM" {
			t.Errorf("a reader accepts: %s", got)
		}
	}
	k.kill()
	if err := b.Abort(ctx); err != nil {
		t.Error(err)
	}
}
