package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// A pool is opened again if it is the same; one of another UUID is not, and one
// that is back is.
//
// proves S36
func TestPoolIsTheSame(t *testing.T) {
	s := newScene(t)
	become := func(uuid string) {
		s.f.mu.Lock()
		s.f.uuid = uuid
		s.f.mu.Unlock()
		l := s.c.current.Load()
		s.f.drop(true)
		s.c.broken(l)
	}
	become("another")
	if _, err := s.p.Mblock(t.Context(), s.old.ID()); !errors.Is(err, api.EBADF) {
		t.Errorf("find in another pool of the name: %v", err)
	}
	if err := s.p.SetRoots(t.Context(), []api.Root{{Name: "r", ID: s.old.ID()}}); !errors.Is(err, api.EBADF) {
		t.Errorf("roots of another pool of the name: %v", err)
	}
	s.f.mu.Lock()
	for c := range s.f.conns {
		if len(c.handles) != 0 {
			t.Errorf("%d handles are left on the wrong pool", len(c.handles))
		}
	}
	if len(s.f.roots) != 0 {
		t.Error("the other pool was changed")
	}
	s.f.mu.Unlock()
	become("one")
	if _, err := s.p.Mblock(t.Context(), s.old.ID()); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// An id that was given again names another object: it is not read, and it is
// no proof of a commit.
//
// proves S36
func TestIDGivenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		op   ioctl.Op
		call func(s *scene) error
		want string
	}{
		"read":   {ioctl.OpMblockRead, func(s *scene) error { return s.read(t.Context(), 10) }, "EBADF"},
		"info":   {ioctl.OpObjectInfo, func(s *scene) error { return second(s.old.Info(t.Context())) }, "EBADF"},
		"commit": {ioctl.OpObjectCommit, func(s *scene) error { return s.fresh.Commit(t.Context()) }, "ECONNRESET"},
		"delete": {ioctl.OpObjectDelete, func(s *scene) error { return s.old.Delete(t.Context()) }, "ok"},
	} {
		s := newScene(t)
		s.f.mu.Lock()
		s.f.fault = func(op ioctl.Op) (boundary, bool) {
			if op != c.op {
				return never, false
			}
			s.f.fault = nil
			for _, id := range []api.Object{s.old, s.fresh} {
				s.f.objects[id.ID()] = &fakeObject{
					id: id.ID(), created: s.f.created.Add(time.Millisecond), committed: true, data: []byte("another's bytes"),
				}
			}
			return afterAsked, true
		}
		s.f.mu.Unlock()
		if err := c.call(s); !fits(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		s.f.mu.Lock()
		for conn := range s.f.conns {
			if len(conn.handles) > 1 { // the pool's
				t.Errorf("%s: %d handles are left", name, len(conn.handles))
			}
		}
		s.f.mu.Unlock()
	}
}

// While the daemon still works for the old connection nothing is concluded from
// what is there; if it does not end, the outcome is unknown.
//
// proves S36
func TestOldSessionGoesOn(t *testing.T) {
	for _, ends := range []bool{true, false} {
		t.Run(fmt.Sprintf("ends=%v", ends), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			session := s.c.current.Load().limits.Session
			s.f.mu.Lock()
			s.f.lingers = []uint64{session}
			looks := 0
			s.f.fault = func(op ioctl.Op) (boundary, bool) {
				switch op { //nolint:exhaustive // nothing else breaks
				case ioctl.OpObjectCommit:
					return afterAsked, false
				case ioctl.OpClientList:
					if looks++; ends && looks == 4 {
						// The commit comes through at last.
						s.f.lingers = nil
						id := s.fresh.ID()
						s.f.objects[id] = &fakeObject{id: id, created: s.f.created, committed: true}
					}
				}
				return never, false
			}
			s.f.mu.Unlock()
			want := "ok"
			if !ends {
				want = "EUNKNOWN"
			}
			if err := s.fresh.Commit(t.Context()); !fits(err, want) {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}

// A commit of many whose objects are there, but not its roots, may be this
// one's or an earlier one's work.
func TestCommitManyUnclear(t *testing.T) {
	s := newScene(t)
	s.f.breakAt(ioctl.OpCommitMany, afterAsked, true)
	err := s.p.CommitMany(t.Context(), []api.Object{s.old}, []api.Root{{Name: "r", ID: s.old.ID()}})
	if !fits(err, "EUNKNOWN") {
		t.Error(err)
	}
}

// A list that breaks in its middle says so, and does not begin again by itself.
func TestListBreaks(t *testing.T) {
	s := newScene(t)
	n := 0
	var last error
	for _, err := range s.p.Objects(t.Context(), api.Filter{}) {
		if last = err; err == nil && n == 0 {
			s.f.drop(true)
			s.c.broken(s.c.current.Load())
		}
		n++
	}
	if last != nil && !errors.Is(last, api.ECONNRESET) {
		t.Errorf("after %d objects: %v", n, last)
	}
	var st stream[int]
	st.begun = true
	err := st.broken(ioctl.OpListNext, lost(ioctl.OpListNext, errClosed))
	if lostIn(err) != nil || !errors.Is(err, api.ECONNRESET) {
		t.Errorf("a list that cannot begin anew: %v", err)
	}
}

// A connection that breaks while memory is being shared for a call's data
// breaks before the call's request.
//
// proves S36
func TestLostWithItsArena(t *testing.T) {
	for _, op := range []ioctl.Op{ioctl.OpArena, ioctl.OpArenaMapped} {
		for _, at := range []boundary{afterAsked, afterDone, afterAnswer} {
			s := newScene(t)
			ctx := t.Context()
			c := s.f.connect(Options{}) // has no arena yet
			p := must(c.OpenPool(ctx, "data"))
			m := must(p.Mblock(ctx, s.old.ID()))
			s.f.breakAt(op, at, false)
			got := make([]byte, len(s.data))
			if _, err := m.ReadAtContext(ctx, got, 0); err != nil || string(got) != string(s.data) {
				t.Errorf("read, broken at %v: %v", op, err)
			}
			c = s.f.connect(Options{})
			p = must(c.OpenPool(ctx, "data"))
			l := must(must(p.Mlog(ctx, s.log.ID())).OpenAppend(ctx))
			s.f.breakAt(op, at, true)
			if _, err := l.Append(ctx, s.data, true); at != afterAnswer && !errors.Is(err, api.EBADF) {
				t.Errorf("append, broken at %v: %v", op, err)
			}
		}
	}
}

// A daemon that cannot be asked about an object has not said that it is not
// there.
//
// proves S36
func TestLookThatFails(t *testing.T) {
	for _, code := range []api.Code{api.EBADF, api.EPERM, api.EIO, api.ENOMEM} {
		for what, c := range map[string]struct {
			op   ioctl.Op
			call func(s *scene) error
		}{
			"commit": {ioctl.OpObjectCommit, func(s *scene) error { return s.fresh.Commit(t.Context()) }},
			"delete": {ioctl.OpObjectDelete, func(s *scene) error { return s.old.Delete(t.Context()) }},
			"many": {ioctl.OpCommitMany, func(s *scene) error {
				return s.p.CommitMany(t.Context(), []api.Object{s.fresh}, nil)
			}},
		} {
			s := newScene(t)
			s.f.mu.Lock()
			s.f.refuse = func(op ioctl.Op) error {
				if op == ioctl.OpMblockFind {
					return code
				}
				return nil
			}
			s.f.mu.Unlock()
			s.f.breakAt(c.op, afterDone, true)
			if err := c.call(s); !fits(err, "EUNKNOWN") || !errors.Is(err, code) {
				t.Errorf("%s, looked for: %v: %v", what, code, err)
			}
		}
	}
}

// While another's delete of the object is under way a look does not tell what became of
// one's own: it looks again, until that is over.
//
// proves S36
func TestLookWhileItIsDeleted(t *testing.T) {
	for what, c := range map[string]struct {
		looks int // that find it being deleted
		back  bool
		want  string
	}{
		"deleted":  {3, false, "ok"},
		"restored": {3, true, "ECONNRESET"},
		"goes on":  {1 << 20, false, "EUNKNOWN"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			n := 0
			s.f.mu.Lock()
			is := s.f.objects[s.old.ID()]
			s.f.refuse = func(op ioctl.Op) error {
				if op != ioctl.OpMblockFind {
					return nil
				}
				if n++; n <= c.looks {
					return &api.Error{Code: api.ENOENT, Object: is.id, Holders: []api.Holder{{References: 1}}}
				}
				if c.back {
					s.f.objects[is.id] = is
				}
				return nil
			}
			s.f.mu.Unlock()
			s.f.breakAt(ioctl.OpObjectDelete, afterDone, true)
			if err := s.old.Delete(t.Context()); !fits(err, c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
