package client

import (
	"context"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// Grant implements [api.Object]. What is being written by calls under way may go
// along in part.
func (o *object) Grant(ctx context.Context, ttl time.Duration) (api.Token, error) {
	const op = ioctl.OpGrant
	reply := &ioctl.Granted{}
	err := o.ask(ctx, op, &ioctl.Grant{Object: o.h, TTL: ttl}, reply)
	return reply.Token, ungranted(op, err)
}

// Grant implements [api.Object]: no mblock is handed over of which it is not known
// what was written.
func (m *mblock) Grant(ctx context.Context, ttl time.Duration) (api.Token, error) {
	if err := m.sound(ioctl.OpGrant); err != nil {
		return api.Token{}, err
	}
	return m.object.Grant(ctx, ttl)
}

// Revoke implements [api.Object].
func (o *object) Revoke(ctx context.Context) error {
	const op = ioctl.OpRevoke
	return ungranted(op, o.do(ctx, op))
}

// ungranted is the error of a request whose answer was lost: with the connection
// the object went, if it was still this process's, and every token of it.
func ungranted(op ioctl.Op, err error) error {
	if lostIn(err) == nil {
		return err
	}
	return final(op, err, "the connection to the daemon is gone, and with it the uncommitted object and its grant, unless that was accepted before")
}

// Accept implements [api.Pool].
func (p *pool) Accept(ctx context.Context, t api.Token) (api.Object, error) {
	o, err := p.open(ctx, ioctl.OpAccept, once, func(h ioctl.Handle) ioctl.Message { return &ioctl.Accept{Pool: h, Token: t} })
	if err != nil {
		return nil, err
	}
	if o.ID.Kind() == layout.KindMlog {
		return o.mlog(), nil
	}
	return o.mblock(), nil
}
