package server

import (
	"context"
	"sync"
	"testing"

	"github.com/mpool-go/mpool/api"
)

// asked is a context that has something done before it first says whether it
// has ended: between the look for a pool and its change.
type asked struct {
	context.Context
	first *sync.Once
	do    func()
}

func (a asked) Err() error {
	a.first.Do(a.do)
	return a.Context.Err()
}

// Who changes a pool by a name that it just had does nothing to it, nor to the
// one that has the name now.
//
// proves S5
func TestChangeOfAPoolThatHasLeft(t *testing.T) {
	r := newRig(t)
	r.dial() // it serves
	bg := context.Background()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	meanwhile := func(do func()) context.Context { return asked{bg, &sync.Once{}, do} }
	want(t, api.ENOENT, r.srv.DeactivatePool(meanwhile(func() { ok(r.srv.RenamePool(bg, "data", "warm")) }), "data"))
	want(t, api.ENOENT, r.srv.DestroyPool(meanwhile(func() { ok(r.srv.RenamePool(bg, "warm", "data")) }), "warm"))
	a, err := r.srv.pools.get("data")
	ok(err)
	want(t, api.ENOENT, r.srv.DeactivatePool(meanwhile(func() {
		ok(r.srv.DeactivatePool(bg, "data"))
		ok(r.srv.Activate(bg, "data", nil))
	}), "data"))
	want(t, api.ENOENT, a.open())
	infos, err := r.srv.Pools(bg)
	if err != nil || len(infos) != 1 || infos[0].Name != "data" {
		t.Errorf("active: %+v, %v", infos, err)
	}
	ok(r.srv.DeactivatePool(bg, "data"))
	ok(r.srv.Activate(bg, "data", nil))
}
