package behave

import (
	"bytes"
	"errors"
	"time"

	"github.com/mpool-go/mpool/api"
)

// handOver grants objects and accepts them, through a daemon; in process, where
// there is nobody to hand over to, that is ENOTSUP and changes nothing.
//
// proves S35
func handOver(e *Env) {
	m, err := e.Pool.AllocMblock(e.Ctx, api.AllocOptions{Capacity: 8192})
	e.ok(err)
	l, err := e.Pool.AllocMlog(e.Ctx, api.AllocOptions{Capacity: 1 << 16})
	e.ok(err)
	written := data(35, 4096)
	_, err = m.Write(e.Ctx, written)
	e.ok(err)
	token, err := m.Grant(e.Ctx, time.Minute)
	if errors.Is(err, api.ENOTSUP) {
		noHandOver(e, m, l)
		return
	}
	e.ok(err)
	o, err := e.Pool.Accept(e.Ctx, token)
	e.ok(err)
	_, err = e.Pool.Accept(e.Ctx, token)
	e.want(api.ENOENT, err)
	e.want(api.EBADF, m.Abort(e.Ctx))
	got, ok := o.(api.Mblock)
	e.equal("an mblock", ok, true)
	e.ok(got.Commit(e.Ctx))
	read := make([]byte, len(written))
	_, err = got.ReadAtContext(e.Ctx, read, 0)
	e.ok(err)
	e.equal("what was written", bytes.Equal(read, written), true)
	_, err = got.Grant(e.Ctx, time.Minute)
	e.want(api.ESTATE, err)
	e.ok(got.Delete(e.Ctx))

	token, err = l.Grant(e.Ctx, api.MaxGrant)
	e.ok(err)
	e.ok(l.Revoke(e.Ctx))
	_, err = e.Pool.Accept(e.Ctx, token)
	e.want(api.ENOENT, err)
	for _, ttl := range []time.Duration{0, api.MinGrant - 1, api.MaxGrant + 1} {
		_, err = l.Grant(e.Ctx, ttl)
		e.want(api.EINVAL, err)
	}
	token, err = l.Grant(e.Ctx, time.Minute)
	e.ok(err)
	o, err = e.Pool.Accept(e.Ctx, token)
	e.ok(err)
	log, ok := o.(api.Mlog)
	e.equal("an mlog", ok, true)
	e.ok(log.Abort(e.Ctx))
}

func noHandOver(e *Env, m api.Mblock, l api.Mlog) {
	e.T.Helper()
	e.want(api.ENOTSUP, m.Revoke(e.Ctx))
	_, err := l.Grant(e.Ctx, time.Minute)
	e.want(api.ENOTSUP, err)
	_, err = e.Pool.Accept(e.Ctx, api.Token{1})
	e.want(api.ENOTSUP, err)
	e.ok(m.Abort(e.Ctx))
	_, err = m.Grant(e.Ctx, time.Minute)
	e.want(api.EBADF, err)
	e.want(api.EBADF, m.Revoke(e.Ctx))
	e.ok(l.Abort(e.Ctx))
}
