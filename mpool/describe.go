package mpool

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// Describe describes an object of any state without taking a reference on it,
// so that a look is in nobody's way. Errors: ENOENT, EBADF (the pool is
// closed).
func (p *Pool) Describe(_ context.Context, id layout.ObjectID) (api.ObjectInfo, error) {
	const op = "object show"
	p.usesMu.Lock()
	if err := p.alive(op); err != nil {
		p.usesMu.Unlock()
		return api.ObjectInfo{}, err
	}
	o := p.uses[id]
	desc, ok := p.table.Lookup(id)
	p.usesMu.Unlock()
	switch {
	case o != nil:
		return o.info(), nil
	case ok:
		return p.describe(&desc), nil
	}
	return api.ObjectInfo{}, noSuch(op, id)
}
