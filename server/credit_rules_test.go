package server

import (
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// fenceInTable fences a handle as one whose claim is taken is at first: it is in its
// table still.
func (r *rig) fenceInTable(s *session, h ioctl.Handle) {
	r.t.Helper()
	e, err := s.table.Use(uhandle.Handle(h), uhandle.Handle(h).Kind())
	if err != nil {
		r.t.Fatal(err)
	}
	e.Value.fence()
	s.doneWith(e)
}

// proves G44: nothing is begun with a handle from the moment its claim is taken, before it
// is out of its table: no write, commit nor append over the socket, nothing through a
// ring; and nobody is given it.
func TestFencedInItsTable(t *testing.T) {
	r := newLoopRig(t)
	w := r.ringDial(16)
	s := r.sessionOf(t, w.pool)
	h := w.alloc(8192)
	w.do(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096))
	log := w.opened(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 64 << 10}})
	w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: log})
	app := w.opened(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: log})
	record := &ioctl.AppendRecord{To: app, Sync: true, Data: ioctl.InlinePayload([]byte("record"))}
	w.ok(ioctl.OpAppend, record)
	given := w.alloc(8192)
	token := w.ok(ioctl.OpGrant, &ioctl.Grant{Object: given, TTL: time.Minute}).(*ioctl.Granted).Token

	for _, x := range []ioctl.Handle{h, app, given} {
		r.fenceInTable(s, x)
	}
	want(t, api.ESTALE, w.fails(w.desc(ioctl.OpMblockWrite, h, 0, 0, 4096)))
	want(t, api.ESTALE, w.fails(w.desc(ioctl.OpObjectCommit, h, 0, 0, 0)))
	for op, m := range map[ioctl.Op]ioctl.Message{ // in any order
		ioctl.OpMblockWrite:  &ioctl.MblockWrite{Mblock: h, Total: 3, Data: ioctl.InlinePayload([]byte("abc"))},
		ioctl.OpObjectCommit: &ioctl.Target{Handle: h},
		ioctl.OpAppend:       record,
	} {
		_, err := w.ask(op, m)
		want(t, api.ESTALE, err)
	}
	o := r.raw()
	_, err := o.ask(ioctl.OpAccept, &ioctl.Accept{Pool: o.openPool(), Token: token})
	want(t, api.ENOENT, err)
}

// proves G49: a session borrows of an object no more than it may do with it: nothing of
// what it may not see, no reading of what another has not committed, and nothing but
// reading through a pool that it may only read.
func TestWhoMayBorrow(t *testing.T) {
	r := newRig(t)
	x := newTenants(t, r)
	c := r.creditor()
	a := r.borrower()
	made := a.ok(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: a.pool, Options: api.AllocOptions{Capacity: 4096}}).(*ioctl.Opened)
	maker := r.sessionOf(t, a.pool)
	as := func(uid uint32) *session {
		return &session{srv: r.srv, ctx: t.Context(), peer: &peer{uid: uid}}
	}
	for _, k := range []struct {
		who      string
		s        *session
		id       layout.ObjectID
		m        credit.Modes
		readOnly bool
		want     credit.Code
	}{
		{"who acts for its owner", as(2001), x.mblock[ofDB], credit.Write, false, 0},
		{"who acts for another", as(2001), x.mblock[ofAcme], credit.Read, false, credit.ErrNotFound},
		{"nobody", as(2006), x.mlog[ofAcme], credit.Append, false, credit.ErrNotFound},
		{"who made it", maker, made.ID, credit.Read, false, 0},
		{"another", as(0), made.ID, credit.Read, false, credit.ErrNotFound},
		{"a reader", maker, x.mblock[ofPool], credit.Read, true, 0},
		{"a reader that writes", maker, x.mblock[ofPool], credit.Write, true, credit.ErrDenied},
		{"a reader that appends", maker, x.mlog[ofPool], credit.Append, true, credit.ErrDenied},
		{"a reader that deletes", maker, x.mblock[ofPool], credit.Delete, true, credit.ErrDenied},
	} {
		got := c.admit(k.s, &poolRef{pool: c.pool, writable: !k.readOnly}, k.id, wholeOf(k.m))
		if got == 0 {
			c.unpin(k.id)
		}
		if got != k.want {
			t.Errorf("%s: %v, want %v", k.who, got, k.want)
		}
	}
	a.end()
	r.residue()
}
