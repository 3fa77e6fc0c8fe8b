package server

import (
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// withHolders puts into an EBUSY who holds an object. Others' processes are
// named to administrators only.
func (r *request) withHolders(a *activePool, id layout.ObjectID, err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.EBUSY {
		return err
	}
	if !errors.Is(err, credit.ErrBusy) { // which names those of credits
		e.Holders = r.holders(a, r.heldAs(a, id))
	}
	return err
}

// unlessHeld does what others' references on an object are in the way of, and says
// who holds it if they are.
func (r *request) unlessHeld(a *activePool, id layout.ObjectID, do func() error) error {
	dying := &r.s.srv.dying
	was := dying.left.Load()
	err := do()
	// Who was in the way may have let go by itself meanwhile.
	if api.CodeOf(err) == api.EBUSY {
		ids := r.heldAs(a, id)
		if fenced := a.credits.settled(r.ctx, ids); dying.letGoOf(ids...) || dying.left.Load() != was || fenced {
			err = do()
		}
	}
	return r.withHolders(a, id, err)
}

// heldAs returns the objects whose handles hold an object.
func (r *request) heldAs(a *activePool, id layout.ObjectID) []layout.ObjectID {
	ids := []layout.ObjectID{id}
	if info, err := a.pool.Describe(r.ctx, id); err == nil && info.Partner != 0 {
		ids = append(ids, info.Partner) // who holds a container's one log holds both
	}
	return ids
}

// holders returns who has handles on objects, as far as the session may know.
func (r *request) holders(a *activePool, ids []layout.ObjectID) []api.Holder {
	var list []api.Holder
	for _, s := range r.s.srv.all() {
		if !s.greeted.Load() {
			continue // it has nothing yet
		}
		h := api.Holder{References: s.count(a, ids)}
		if h.References == 0 {
			continue
		}
		if r.s.peer.admin || s.peer.pid == r.s.peer.pid {
			h.PID = s.peer.pid
		}
		list = append(list, h)
	}
	return list
}

// count counts the session's handles on objects.
func (s *session) count(a *activePool, ids []layout.ObjectID) (n uint32) {
	for _, id := range ids {
		s.table.EachOf(uint64(id), func(_ uhandle.Handle, v resource) {
			if v.home() == a {
				n++
			}
		})
	}
	return n
}
