package mpool

import (
	"context"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// MayHandOver says why an object cannot become another process's now: EBADF,
// ENOENT, ESTATE (it is committed), EBUSY (there are references beside the
// handle's, or I/O on it or its commit is under way). It takes no reference and
// never waits; nil holds as long as nothing is begun with the handle. The handle
// must be of this pool.
func (p *Pool) MayHandOver(obj api.Object) error {
	const op = "object grant"
	h, ok := obj.(interface{ base() *handle })
	if !ok || h.base().obj.pool != p {
		return api.Errorf(api.EBADF, op, "object %v is not a handle of this pool", obj.ID())
	}
	o, err := h.base().live(context.Background(), op)
	if err != nil {
		return err
	}
	switch o.stateNow() {
	case uncommitted:
	case committing:
		return &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "its commit is under way"}
	case gone:
		return noSuch(op, o.id)
	case committed, deleting:
		return &api.Error{Code: api.ESTATE, Op: op, Object: o.id, Detail: "the object is committed: others find it by its id"}
	}
	if n := o.use.Pins(); n > 0 {
		return &api.Error{Code: api.EBUSY, Op: op, Object: o.id, Detail: "reads or writes of it are under way"}
	}
	p.usesMu.Lock()
	defer p.usesMu.Unlock()
	switch {
	case o.use.Deleting():
		return noSuch(op, o.id)
	case o.use.Refs() != 1:
		return &api.Error{
			Code: api.EBUSY, Op: op, Object: o.id, Detail: "there are other handles on the object: put them first",
			Holders: []api.Holder{{References: o.use.Refs()}},
		}
	}
	return nil
}

// Grant implements [api.Object]: ENOTSUP.
func (h *handle) Grant(ctx context.Context, _ time.Duration) (api.Token, error) {
	return api.Token{}, h.alone(ctx, "object grant")
}

// Revoke implements [api.Object]: ENOTSUP.
func (h *handle) Revoke(ctx context.Context) error { return h.alone(ctx, "object revoke") }

// alone says why a live handle is not granted.
func (h *handle) alone(ctx context.Context, op string) error {
	o, err := h.live(ctx, op)
	if err != nil {
		return err
	}
	return alone(op, o.id)
}

// Accept implements [api.Pool]: ENOTSUP.
func (p *Pool) Accept(ctx context.Context, _ api.Token) (api.Object, error) {
	const op = "object accept"
	if err := p.alive(op); err != nil {
		return nil, err
	}
	if err := timely(ctx, op); err != nil {
		return nil, err
	}
	return nil, alone(op, 0)
}

func alone(op string, id layout.ObjectID) error {
	return &api.Error{
		Code: api.ENOTSUP, Op: op, Object: id,
		Detail: "the pool is this process's alone: objects are handed over between processes, through a daemon; here, pass the handle",
	}
}
