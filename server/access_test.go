package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// tenants is a pool with owners, and things that they own.
type tenants struct {
	r                   *rig
	admin               api.Pool
	mblock, mlog, mdcID []layout.ObjectID // by owner
}

const (
	ofPool  = 0
	ofAcme  = 1
	ofDB    = 2 // acme/db
	ofTable = 3 // acme/db/table
	ofOther = 4
	owners  = 5

	poolUID = 3001
)

// Users and whom they act for.
var tenantRules = []OwnerRule{
	{"data", 2001, "acme/db"},
	{"data", 2002, "acme"},
	{"data", 2003, "other"},
	{"data", 2003, "db"},
	{"data", 2004, "nobody"},
	{"another", 2005, "acme"},
}

func newTenants(t *testing.T, r *rig) *tenants {
	t.Helper()
	ctx := context.Background()
	r.letOthersIn()
	c := r.dial()
	x := &tenants{r: r, admin: r.open(c)}
	if err := c.SetPool(ctx, "data", api.PoolSettings{UID: new(uint32(poolUID))}); err != nil {
		t.Fatal(err)
	}
	for i, o := range []api.Owner{{Name: "acme"}, {Name: "db", Parent: ofAcme}, {Name: "table", Parent: ofDB}, {Name: "other"}} {
		if got := must[uint32](t)(x.admin.AddOwner(ctx, o.Name, o.Parent)); got != uint32(i+1) {
			t.Fatalf("owner %q has index %d", o.Name, got)
		}
	}
	if err := r.srv.SetOwners(tenantRules); err != nil {
		t.Fatal(err)
	}
	for owner := range uint32(owners) {
		o := api.AllocOptions{Capacity: 64 << 10, Owner: owner}
		b := must[api.Mblock](t)(x.admin.AllocMblock(ctx, o))
		l := must[api.Mlog](t)(x.admin.AllocMlog(ctx, o))
		if err := x.admin.CommitMany(ctx, []api.Object{b, l}, nil); err != nil {
			t.Fatal(err)
		}
		x.mblock, x.mlog = append(x.mblock, b.ID()), append(x.mlog, l.ID())
		o.Capacity = 1 << 20
		x.mdcID = append(x.mdcID, must[layout.ObjectID](t)(x.admin.CreateMDC(ctx, o)))
		if err := errors.Join(b.Put(), l.Put()); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// reaches checks what an actor can reach: the objects of these owners, by every
// call that names one.
func (x *tenants) reaches(t *testing.T, k *offspring, who string, reach string) {
	t.Helper()
	for owner := range owners {
		want := "ENOENT"
		if strings.Contains(reach, strconv.Itoa(owner)) {
			want = "ok"
		}
		b, l, m := x.mblock[owner], x.mlog[owner], x.mdcID[owner]
		for _, c := range []struct {
			verb string
			id   layout.ObjectID
		}{{"mblock", b}, {"mlog", l}, {"mdc", m}, {"root", b}, {"root", m}, {"commit", l}} {
			if got := k.says(c.verb, c.id); got != want {
				t.Errorf("%s, owner %d, %s: %s, want %s", who, owner, c.verb, got, want)
			}
		}
		if want == "ok" {
			k.says("put", b)
			k.says("put", l)
		} else if got := k.says("undo", m); got != want {
			t.Errorf("%s, owner %d, delete of a container: %s, want %s", who, owner, got, want)
		}
	}
	if got := k.says("list"); got != reach {
		t.Errorf("%s lists objects of %q, want %q", who, got, reach)
	}
}

// Within a pool an object is for its owner, the owner's ancestors, the pool's
// user and administrators; a session may name only owners that its user acts
// for.
//
// proves S44
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	for name, rig := range map[string]func(*testing.T) *rig{
		"fake": func(t *testing.T) *rig { return newRig(t) }, "engine": newEngineRig,
	} {
		t.Run(name, func(t *testing.T) {
			x := newTenants(t, rig(t))
			for _, c := range []struct {
				uid         int
				reach, name string // owners
				as          string // what owner 0 means
			}{
				{0, "01234", "01234", "0"},
				{poolUID, "01234", "01234", "0"},
				{2001, "23", "02", "2"},
				{2002, "123", "01", "1"},
				{2003, "234", "024", "4"},
				{2005, "0", "0", "0"}, // by another pool's rule
				{2006, "0", "0", "0"}, // by none
			} {
				who := fmt.Sprintf("user %d", c.uid)
				k := x.r.actor(c.uid)
				x.reaches(t, k, who, c.reach)
				for owner := range owners {
					want, done := "EPERM", "EPERM"
					if strings.Contains(c.name, strconv.Itoa(owner)) {
						want, done = fmt.Sprintf("as %d", owner), "ok"
						if owner == 0 {
							want = "as " + c.as
						}
					}
					for verb, want := range map[string]string{"alloc": want, "log": want, "container": done} {
						if got := k.says(verb, owner); got != want {
							t.Errorf("%s for owner %d: %s: %s, want %s", who, owner, verb, got, want)
						}
					}
				}
				want := "EPERM"
				if c.uid == 0 || c.uid == poolUID {
					want = "ok"
				}
				if got := k.says("owner", fmt.Sprint("by", c.uid)); got != want {
					t.Errorf("%s adds an owner: %s, want %s", who, got, want)
				}
				k.kill()
			}
			// A rule that names nobody.
			k := x.r.actor(2004)
			for owner := range owners {
				if got := k.says("alloc", owner); got != "EPERM" {
					t.Errorf("user 2004 allocates for owner %d: %s", owner, got)
				}
				if got := k.says("mblock", x.mblock[owner]); got != "ENOENT" {
					t.Errorf("user 2004 finds an object of owner %d: %s", owner, got)
				}
			}
			if got := k.says("list"); got != "ok" { // without one
				t.Errorf("user 2004 lists objects of %q", got)
			}
			if n := strings.Count(x.r.log.String(), "owner=nobody"); n != 1 {
				t.Errorf("the log says %d times that an owner is not there", n)
			}
		})
	}
}

// In a shared pool objects are for everybody, and owners are not. A change of
// the rules counts at once, and a handle obtained keeps its right.
//
// proves S44
func TestOwnersChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	ctx := context.Background()
	x := newTenants(t, newEngineRig(t))
	db, nobody := x.r.actor(2001), x.r.actor(2004)
	set := func(shared bool) {
		t.Helper()
		if err := x.r.srv.SetPool(ctx, "data", api.PoolSettings{Shared: &shared}); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	x.reaches(t, db, "shared", "01234")
	if got := db.says("alloc", ofAcme); got != "EPERM" {
		t.Errorf("alloc for another owner of a shared pool: %s", got)
	}
	if got := db.says("mblock", x.mblock[ofOther]); got != "ok" {
		t.Error(got)
	}
	set(false)
	x.reaches(t, db, "not shared any more", "23")
	if got := db.says("read", x.mblock[ofOther]); got != "EIO" { // which is io.EOF here: it is empty
		t.Errorf("a handle it has: %s", got)
	}
	if got := db.says("delete", x.mblock[ofOther]); got != "ok" {
		t.Errorf("a handle it has: %s", got)
	}
	// The owner that a rule names comes to be.
	if got := nobody.says("alloc", 0); got != "EPERM" {
		t.Error(got)
	}
	if got := nobody.says("mblock", x.mblock[ofPool]); got != "ENOENT" {
		t.Errorf("a rule that grants nothing: %s", got)
	}
	index := must[uint32](t)(x.admin.AddOwner(ctx, "nobody", ofTable))
	if got := nobody.says("alloc", 0); got != fmt.Sprint("as ", index) {
		t.Error(got)
	}
	if got := nobody.says("mblock", x.mblock[ofTable]); got != "ENOENT" {
		t.Errorf("a parent's object: %s", got)
	}
	// Other rules.
	if err := x.r.srv.SetOwners([]OwnerRule{{"data", 2001, "other"}}); err != nil {
		t.Fatal(err)
	}
	if got := db.says("alloc", 0); got != "as 4" {
		t.Error(got)
	}
	if got := nobody.says("mlog", x.mlog[ofPool]); got != "ok" {
		t.Errorf("without a rule: %s", got)
	}
	for _, bad := range []OwnerRule{{"", 1, "x"}, {"data", 1, ""}, {strings.Repeat("x", 64), 1, "x"}} {
		if err := x.r.srv.SetOwners([]OwnerRule{bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if got := db.says("alloc", 0); got != "as 4" {
		t.Errorf("after rules that were refused: %s", got)
	}
}

// An owner that has come without the server's doing is found when it is needed.
//
// proves S44
func TestOwnerComesLate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	ctx := context.Background()
	x := newTenants(t, newRig(t))
	db, nobody := x.r.actor(2001), x.r.actor(2004)
	if got := nobody.says("alloc", 0); got != "EPERM" {
		t.Error(got)
	}
	p := x.r.pool()
	late := must[uint32](t)(p.AddOwner(ctx, "nobody", ofDB))
	b := must[api.Mblock](t)(p.AllocMblock(ctx, api.AllocOptions{Capacity: 1, Owner: late}))
	if err := errors.Join(b.Commit(ctx), b.Put()); err != nil {
		t.Fatal(err)
	}
	if got := db.says("mblock", b.ID()); got != "ok" {
		t.Errorf("an ancestor's session: %s", got)
	}
	if got := nobody.says("mblock", b.ID()); got != "ok" {
		t.Errorf("the owner's session: %s", got)
	}
}

// Owners are found by name, and by path where a name is several's.
func TestFindOwner(t *testing.T) {
	table := []api.Owner{
		{},
		{Index: 1, Name: "a"},
		{Index: 2, Name: "db", Parent: 1},
		{Index: 3, Name: "b"},
		{Index: 4, Name: "db", Parent: 3},
		{Index: 5, Name: "x", Parent: 4},
		{Index: 6, Name: "a/b"},
		{Index: 7, Name: "b", Parent: 1},
	}
	for name, want := range map[string]uint32{
		"a": 1, "a/db": 2, "b/db": 4, "x": 5, "b/db/x": 5, "b": 3,
		"db": 0, "c": 0, "": 0, "/": 0, "db/x": 0, "a/x": 0, "/a": 0,
	} {
		got, why := findOwner(table, name)
		if got != want || (why == "") != (want != 0) {
			t.Errorf("%q is %d, %q, want %d", name, got, why, want)
		}
	}
}

// Who is not an administrator sees sessions, handles and events of its own user
// only, and of who holds an object how many references.
//
// proves S44
func TestOthersAreHidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become other users")
	}
	r := newRig(t)
	r.letOthersIn()
	gone := r.actor(2001)
	gone.kill()
	r.nextReaped(1)
	one, two, other := r.actor(2001), r.actor(2001), r.actor(2002)
	b := must[api.Mblock](t)(r.pool().AllocMblock(context.Background(), api.AllocOptions{Capacity: 1}))
	if err := errors.Join(b.Commit(context.Background()), b.Put()); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*offspring{one, two, other} {
		if got := k.says("mblock", b.ID()); got != "ok" {
			t.Fatal(got)
		}
	}
	if got := one.says("delete", b.ID()); strings.Count(got, "true") != 1 || strings.Count(got, ":1") != 3 {
		t.Errorf("one is told who holds it: %s", got)
	}
	admin := r.raw()
	h := admin.opened(ioctl.OpMblockFind, &ioctl.Find{Pool: admin.openPool(), ID: b.ID()})
	_, err := admin.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	var e *api.Error
	if !errors.As(err, &e) || len(e.Holders) != 4 || slices.ContainsFunc(e.Holders, func(h api.Holder) bool { return h.PID == 0 }) {
		t.Errorf("an administrator is told %+v", e)
	}
	for k, want := range map[*offspring]string{
		// Of its two sessions now, and of the one that has ended.
		one:   "clients 2001 2001; handles 2001 2001 2001 2001; events 2001",
		other: "clients 2002; handles 2002 2002; events",
		r.actor(0): "clients 0 0 2001 2001 2002; handles 0 0 0 2001 2001 2001 2001 2002 2002; " +
			"events 0 2001",
	} {
		if got := k.says("look"); got != want {
			t.Errorf("it sees %q, want %q", got, want)
		}
	}
}
