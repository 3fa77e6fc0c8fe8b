package behave

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// What PutMblock returns is committed, whatever its size; what it refuses is not
// there.
//
// proves S11 S12 S46
func mblockPut(e *Env) {
	var ids []layout.ObjectID
	sizes := []int{0, 1, 4095, 4096, 4097, 40_000, 16 * 4096, 16*4096 + 1, 1 << 20, 1<<20 + 1, 3 << 20}
	for i, n := range sizes {
		tag := uint64(i) + 1<<60
		m, err := e.Pool.PutMblock(e.Ctx, api.AllocOptions{Tag: tag}, data(uint64(i), n))
		e.ok(err)
		info, err := m.Info(e.Ctx)
		e.ok(err)
		e.equal("the state", info.State, api.StateCommitted)
		e.equal("the length", info.Length, int64(n))
		e.equal("the capacity", info.Capacity, int64(n))
		e.equal("the tag", info.Tag, tag)
		e.equal("the references", info.Refs, uint32(1))
		e.ok(m.Commit(e.Ctx)) // of one's own
		_, err = m.Write(e.Ctx, data(9, 10))
		e.want(api.ESTATE, err)
		ids = append(ids, m.ID())
		e.ok(m.Put())
		e.want(api.EBADF, m.Put())
	}
	m, err := e.Pool.PutMblock(e.Ctx, api.AllocOptions{Capacity: 100_000}, data(0, 10))
	e.ok(err)
	info, err := m.Info(e.Ctx)
	e.ok(err)
	e.equal("the capacity", info.Capacity, int64(100_000))
	e.ok(m.Delete(e.Ctx))

	ended, cancel := context.WithCancel(e.Ctx)
	cancel()
	for _, c := range []struct {
		code api.Code
		ctx  context.Context
		o    api.AllocOptions
		n    int
	}{
		{api.EFBIG, e.Ctx, api.AllocOptions{Capacity: 9}, 10},
		{api.EFBIG, e.Ctx, api.AllocOptions{Capacity: 9}, 2 << 20},
		{api.EINVAL, e.Ctx, api.AllocOptions{Capacity: -1}, 10},
		{api.EINVAL, e.Ctx, api.AllocOptions{Capacity: api.MaxMblockCapacity + 1}, 10},
		{api.ENOENT, e.Ctx, api.AllocOptions{Class: api.ClassStaging}, 10},
		{api.ENOENT, e.Ctx, api.AllocOptions{Owner: 77}, 10},
		{api.ENOSPC, e.Ctx, api.AllocOptions{Capacity: 1 << 29}, 10},
		{api.ECANCELED, ended, api.AllocOptions{}, 10},
	} {
		_, err := e.Pool.PutMblock(c.ctx, c.o, data(0, c.n))
		e.want(c.code, err)
	}
	e.equal("the objects", e.count(), len(ids))
	e.Pool = e.Reopen()
	for i, id := range ids {
		e.has(id, data(uint64(i), sizes[i]))
	}
}

// count returns how many objects there are.
func (e *Env) count() (n int) {
	e.T.Helper()
	for _, err := range e.Pool.Objects(e.Ctx, api.Filter{}) {
		e.ok(err)
		n++
	}
	return n
}
