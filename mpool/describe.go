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

// Version returns what rises whenever an object's content changes, so that equal
// versions have equal contents: of an mblock that is committed its birth stamp, of a
// log that is open its generation and how many bytes of it are durable. Zeros: there is
// no such object, or it is not known. It waits for no drive.
func (p *Pool) Version(id layout.ObjectID) [2]uint64 {
	p.usesMu.Lock()
	if p.alive("object show") != nil {
		p.usesMu.Unlock()
		return [2]uint64{}
	}
	o := p.uses[id]
	desc, ok := p.table.Lookup(id)
	p.usesMu.Unlock()
	switch {
	case !ok:
		return [2]uint64{}
	case id.Kind() == layout.KindMblock:
		return [2]uint64{uint64(desc.Birth), 0}
	case o == nil:
		return [2]uint64{}
	}
	info := o.info()
	if info.Length == 0 {
		return [2]uint64{}
	}
	return [2]uint64{info.Generation, uint64(info.Length)}
}
