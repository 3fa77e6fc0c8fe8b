package server

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// grantModel is what sessions, objects and tokens should be.
type grantModel struct {
	t        *testing.T
	r        *rig
	clock    *testClock
	a        *activePool
	sessions []*modelSession
	objects  []*modelObject // that there are
	tokens   []api.Token    // ever given
}

type modelSession struct {
	w    *raw
	id   uint64
	pool ioctl.Handle
}

type modelObject struct {
	id        layout.ObjectID
	of        *modelSession // nil: committed, and nobody's
	handles   []modelHandle // on it
	length    int           // bytes
	token     api.Token     // zero: not granted
	by        ioctl.Handle  // that granted
	until     time.Time     // of the grant
	committed bool
}

type modelHandle struct {
	s *modelSession
	h ioctl.Handle
}

func (m *grantModel) connect() *modelSession {
	w := m.r.rawDial()
	reply := w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 1}).(*ioctl.HelloReply)
	s := &modelSession{w: w, id: reply.Session, pool: w.openPool()}
	m.sessions = append(m.sessions, s)
	return s
}

// leave ends a session and waits until it is gone.
func (m *grantModel) leave(t *rapid.T, s *modelSession) {
	s.w.conn.Close()
	for end := time.Now().Add(inVain); ; time.Sleep(50 * time.Microsecond) {
		if !slices.ContainsFunc(m.r.srv.all(), func(x *session) bool { return x.id == s.id }) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the session does not end")
		}
	}
	m.sessions = slices.DeleteFunc(m.sessions, func(x *modelSession) bool { return x == s })
	m.objects = slices.DeleteFunc(m.objects, func(o *modelObject) bool { return o.of == s && !o.committed })
	for _, o := range m.objects {
		o.handles = slices.DeleteFunc(o.handles, func(h modelHandle) bool { return h.s == s })
	}
}

// object draws one that fits, or none.
func (m *grantModel) object(t *rapid.T, fits func(*modelObject) bool) *modelObject {
	var list []*modelObject
	for _, o := range m.objects {
		if len(o.handles) > 0 && fits(o) {
			list = append(list, o)
		}
	}
	if len(list) == 0 {
		t.Skip("no such object")
	}
	return rapid.SampledFrom(list).Draw(t, "object")
}

func (o *modelObject) any(t *rapid.T) modelHandle {
	return rapid.SampledFrom(o.handles).Draw(t, "handle")
}

func (o *modelObject) granted(now time.Time) bool {
	return o.token != api.Token{} && now.Before(o.until) &&
		slices.ContainsFunc(o.handles, func(h modelHandle) bool { return h.h == o.by && h.s == o.of })
}

func anyObject(*modelObject) bool     { return true }
func uncommitted(o *modelObject) bool { return !o.committed }

// fits fails unless an error is the one expected.
func fitsCode(t *rapid.T, what string, err error, want api.Code) {
	t.Helper()
	if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
		t.Fatalf("%s: %v; want %v", what, err, want)
	}
}

func (m *grantModel) alloc(t *rapid.T) {
	s := rapid.SampledFrom(m.sessions).Draw(t, "session")
	op := rapid.SampledFrom([]ioctl.Op{ioctl.OpMblockAlloc, ioctl.OpMlogAlloc}).Draw(t, "kind")
	got := s.w.ok(op, &ioctl.Alloc{Pool: s.pool, Options: api.AllocOptions{Capacity: 1 << 20}}).(*ioctl.Opened)
	m.objects = append(m.objects, &modelObject{id: got.ID, of: s, handles: []modelHandle{{s, got.Handle}}})
}

func (m *grantModel) get(t *rapid.T) {
	o := m.object(t, anyObject)
	h := o.any(t)
	more := h.s.w.opened(ioctl.OpObjectGet, &ioctl.Target{Handle: h.h})
	o.handles = append(o.handles, modelHandle{h.s, more})
}

func (m *grantModel) put(t *rapid.T) {
	o := m.object(t, anyObject)
	h := o.any(t)
	h.s.w.ok(ioctl.OpClose, &ioctl.Target{Handle: h.h})
	o.handles = slices.DeleteFunc(o.handles, func(x modelHandle) bool { return x == h })
}

// find finds objects by id: one's own uncommitted ones, without handles too.
func (m *grantModel) find(t *rapid.T) {
	if len(m.objects) == 0 {
		t.Skip("no object")
	}
	o := rapid.SampledFrom(m.objects).Draw(t, "object")
	s := rapid.SampledFrom(m.sessions).Draw(t, "session")
	op := ioctl.OpMblockFind
	if o.id.Kind() == layout.KindMlog {
		op = ioctl.OpMlogFind
	}
	reply, err := s.w.ask(op, &ioctl.Find{Pool: s.pool, ID: o.id})
	if !o.committed && o.of != s {
		fitsCode(t, "find of another's", err, api.ENOENT)
		return
	}
	fitsCode(t, "find", err, 0)
	o.handles = append(o.handles, modelHandle{s, reply.(*ioctl.Opened).Handle})
}

func (m *grantModel) write(t *rapid.T) {
	o := m.object(t, func(o *modelObject) bool { return o.id.Kind() == layout.KindMblock && !o.committed })
	h := o.any(t)
	h.s.w.ok(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: h.h, Total: 3, Data: ioctl.InlinePayload([]byte("abc"))})
	o.length += 3
}

func (m *grantModel) grant(t *rapid.T) {
	o := m.object(t, anyObject)
	h := o.any(t)
	ttl := time.Duration(rapid.IntRange(1, 10).Draw(t, "ttl")) * time.Second
	token, err := grantOf(h.s.w, h.h, ttl)
	switch {
	case o.committed:
		fitsCode(t, "grant of a committed one", err, api.ESTATE)
	case len(o.handles) > 1:
		fitsCode(t, "grant of one in use", err, api.EBUSY)
	default:
		fitsCode(t, "grant", err, 0)
		if slices.Contains(m.tokens, token) || token == (api.Token{}) {
			t.Fatalf("token %v is given twice, or is none", token)
		}
		o.token, o.by, o.until = token, h.h, m.clock.now().Add(ttl)
		m.tokens = append(m.tokens, token)
	}
}

func (m *grantModel) revoke(t *rapid.T) {
	o := m.object(t, uncommitted)
	h := o.any(t)
	h.s.w.ok(ioctl.OpRevoke, &ioctl.Target{Handle: h.h})
	o.token = api.Token{}
}

func (m *grantModel) accept(t *rapid.T) {
	if len(m.tokens) == 0 {
		t.Skip("no token")
	}
	s := rapid.SampledFrom(m.sessions).Draw(t, "session")
	token := rapid.SampledFrom(m.tokens).Draw(t, "token")
	i := slices.IndexFunc(m.objects, func(o *modelObject) bool { return o.token == token && !o.committed })
	got, err := acceptBy(s.w, s.pool, token)
	switch {
	case i < 0 || !m.objects[i].granted(m.clock.now()):
		fitsCode(t, "accept of what is over", err, api.ENOENT)
	case len(m.objects[i].handles) > 1:
		fitsCode(t, "accept of one in use", err, api.EBUSY)
	default:
		fitsCode(t, "accept", err, 0)
		o := m.objects[i]
		if got.ID != o.id {
			t.Fatalf("got %v for %v", got.ID, o.id)
		}
		was := o.handles[0]
		o.of, o.token, o.handles = s, api.Token{}, []modelHandle{{s, got.Handle}}
		_, err := was.s.w.ask(ioctl.OpObjectInfo, &ioctl.Target{Handle: was.h})
		fitsCode(t, "the giver's handle", err, api.EBADF)
	}
}

func (m *grantModel) commit(t *rapid.T) {
	o := m.object(t, anyObject)
	h := o.any(t)
	if rapid.Bool().Draw(t, "many") {
		h.s.w.ok(ioctl.OpCommitMany, &ioctl.CommitMany{Pool: h.s.pool, Objects: []ioctl.Handle{h.h}})
	} else {
		h.s.w.ok(ioctl.OpObjectCommit, &ioctl.Target{Handle: h.h})
	}
	o.committed, o.of, o.token = true, nil, api.Token{}
}

func (m *grantModel) end(t *rapid.T) {
	o := m.object(t, anyObject)
	h := o.any(t)
	op := ioctl.OpObjectAbort
	if o.committed {
		op = ioctl.OpObjectDelete
	}
	_, err := h.s.w.ask(op, &ioctl.Target{Handle: h.h})
	if len(o.handles) > 1 {
		fitsCode(t, "end of one in use", err, api.EBUSY)
		return
	}
	fitsCode(t, "end", err, 0)
	m.objects = slices.DeleteFunc(m.objects, func(x *modelObject) bool { return x == o })
}

// check compares all books: the pool's references, each session's table, whose the
// uncommitted objects are, and what is granted.
func (m *grantModel) check(t *rapid.T) {
	p := m.r.pool()
	p.mu.Lock()
	if len(p.misuse) > 0 {
		t.Fatalf("the pool was misused: %v", p.misuse)
	}
	there := maps.Clone(p.objects)
	p.mu.Unlock()
	granted := 0
	for _, o := range m.objects {
		f := there[o.id]
		if f == nil {
			t.Fatalf("%v is gone", o.id)
		}
		delete(there, o.id)
		p.mu.Lock()
		refs, length, state := int(f.refs), len(f.data), f.state
		p.mu.Unlock()
		if refs != len(o.handles) || length != o.length || (state == api.StateCommitted) != o.committed {
			t.Fatalf("%v: %d references, %d bytes, %v; want %+v", o.id, refs, length, state, o)
		}
		var of *session
		if of = m.a.adopter(o.id); (of == nil) != (o.of == nil) || of != nil && of.id != o.of.id {
			t.Fatalf("%v is another's", o.id)
		}
		if o.of != nil && o.granted(m.clock.now()) {
			granted++
			if !m.a.isGranted(of, uhandle.Handle(o.by), o.id, m.clock.now()) {
				t.Fatalf("%v is not granted", o.id)
			}
		}
	}
	if len(there) > 0 {
		t.Fatalf("%d objects are left", len(there))
	}
	m.checkTables(t)
}

// checkTables: each reference is in exactly the table of its holder.
func (m *grantModel) checkTables(t *rapid.T) {
	total := int64(0)
	for _, s := range m.sessions {
		i := slices.IndexFunc(m.r.srv.all(), func(x *session) bool { return x.id == s.id })
		sess := m.r.srv.all()[i]
		want := map[uhandle.Handle]layout.ObjectID{uhandle.Handle(s.pool): 0}
		for _, o := range m.objects {
			for _, h := range o.handles {
				if h.s == s {
					want[uhandle.Handle(h.h)] = o.id
				}
			}
		}
		got := map[uhandle.Handle]layout.ObjectID{}
		children := int64(0)
		sess.table.Each(func(h uhandle.Handle, v resource) {
			got[h] = v.object()
			if p, ok := v.(*poolRef); ok {
				children = p.children.Load()
			}
		})
		if !maps.Equal(got, want) || children != int64(len(want)-1) || sess.table.Len() != len(want) {
			t.Fatalf("session %d has %v, %d children; want %v", s.id, got, children, want)
		}
		total += int64(len(want))
	}
	if n := m.a.handles.Load(); n != total {
		t.Fatalf("%d handles are counted, want %d", n, total)
	}
	m.a.mu.Lock()
	defer m.a.mu.Unlock()
	own := 0
	for _, ids := range m.a.own {
		own += len(ids)
	}
	if own != len(m.a.adopters) || len(m.a.orphaned) != 0 {
		t.Fatalf("%d own, %d adopted, %d orphaned", own, len(m.a.adopters), len(m.a.orphaned))
	}
}

// Whatever sessions grant, accept, put, commit, abort, in whatever order they and
// their time end: after each step every object, reference and grant is in exactly
// the books that it should be in.
//
// proves S35 S31 S33
func TestGrantModel(t *testing.T) {
	var clock testClock
	r := newRig(t, clock.use)
	a := must[*activePool](t)(r.srv.pools.get("data"))
	rapid.Check(t, func(t2 *rapid.T) {
		m := &grantModel{t: t, r: r, clock: &clock, a: a}
		for range 3 {
			m.connect()
		}
		t2.Repeat(map[string]func(*rapid.T){
			"alloc": m.alloc, "get": m.get, "put": m.put, "find": m.find, "write": m.write, "grant": m.grant,
			"grant 2": m.grant, "revoke": m.revoke, "accept": m.accept, "accept 2": m.accept, "commit": m.commit, "end": m.end,
			"wait":  func(t *rapid.T) { clock.advance(time.Duration(rapid.IntRange(0, 5).Draw(t, "s")) * time.Second) },
			"leave": func(t *rapid.T) { m.leave(t, rapid.SampledFrom(m.sessions).Draw(t, "session")); m.connect() },
			"":      m.check,
		})
		for len(m.sessions) > 0 {
			m.leave(t2, m.sessions[0])
		}
		m.check(t2)
		m.sweep(t2)
	})
}

// sweep deletes the committed objects.
func (m *grantModel) sweep(t *rapid.T) {
	s := m.connect()
	for _, o := range m.objects {
		op := ioctl.OpMblockFind
		if o.id.Kind() == layout.KindMlog {
			op = ioctl.OpMlogFind
		}
		h := s.w.opened(op, &ioctl.Find{Pool: s.pool, ID: o.id})
		s.w.ok(ioctl.OpObjectDelete, &ioctl.Target{Handle: h})
	}
	m.objects = nil
	m.leave(t, s)
}
