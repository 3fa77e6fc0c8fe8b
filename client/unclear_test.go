package client

import (
	"errors"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// What a look after a lost answer cannot tell is unknown: neither done nor not.
//
// proves S36 S40
func TestLooksThatTellNothing(t *testing.T) {
	for name, blind := range map[string]func(s *scene){
		// The object may be there after the next activation, or a deleted one.
		"read-only pool": func(s *scene) { s.f.state = "read-only" },
		// The old session is shown to its user only.
		"other user": func(s *scene) { s.c.current.Load().uid++ },
		"no pool": func(s *scene) {
			s.f.refuse = func(op ioctl.Op) error {
				if op == ioctl.OpPoolOpen {
					return api.Errorf(api.ENOENT, "", "no pool")
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for op, call := range map[ioctl.Op]func(s *scene) error{
				ioctl.OpObjectCommit: func(s *scene) error { return s.fresh.Commit(t.Context()) },
				ioctl.OpCommitMany:   func(s *scene) error { return s.p.CommitMany(t.Context(), []api.Object{s.fresh}, nil) },
				ioctl.OpObjectAbort:  func(s *scene) error { return s.fresh.Abort(t.Context()) },
			} {
				s := newScene(t)
				s.f.breakAt(op, afterAsked, false)
				s.f.mu.Lock()
				blind(s)
				s.f.mu.Unlock()
				if err := call(s); !fits(err, "EUNKNOWN") {
					t.Errorf("%v: %v, want EUNKNOWN", op, err)
				}
			}
		})
	}
}

// A pool that is not active any more is not taken for an object that is not
// there.
//
// proves S36
func TestPoolIsGone(t *testing.T) {
	s := newScene(t)
	l := s.c.current.Load()
	s.f.drop(true)
	s.c.broken(l)
	s.f.mu.Lock()
	s.f.refuse = func(op ioctl.Op) error {
		if op == ioctl.OpPoolOpen {
			return api.Errorf(api.ENOENT, "", "no pool")
		}
		return nil
	}
	s.f.mu.Unlock()
	if _, err := s.p.Mblock(t.Context(), s.old.ID()); errors.Is(err, api.ENOENT) || !fits(err, "EBADF") {
		t.Errorf("find: %v, want EBADF", err)
	}
}
