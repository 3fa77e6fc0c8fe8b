package client

import (
	"context"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

var _ api.Quotas = (*pool)(nil)

// quotaPages calls f with each page of what is asked for.
func (p *pool) quotaPages(ctx context.Context, what ioctl.QuotaWhat, owner string, begin func(), f func(*ioctl.QuotaPage) int) error {
	const op = ioctl.OpQuotaShow
	return p.run(ctx, op, again, func(l *link, h ioctl.Handle) error {
		begin()
		for ask := (&ioctl.QuotaShow{Pool: h, What: what, Owner: owner}); ; {
			reply := &ioctl.QuotaPage{}
			if err := l.do(ctx, op, ask, reply); err != nil {
				return err
			}
			n := f(reply)
			if !reply.More || n == 0 {
				return nil
			}
			ask.From += uint32(n)
		}
	})
}

// QuotaClasses implements [api.Quotas].
func (p *pool) QuotaClasses(ctx context.Context) (list []api.QuotaClass, err error) {
	err = p.quotaPages(ctx, ioctl.QuotaShowClasses, "", func() { list = nil }, func(r *ioctl.QuotaPage) int {
		list = append(list, r.Classes...)
		return len(r.Classes)
	})
	return list, err
}

// QuotaLimits implements [api.Quotas].
func (p *pool) QuotaLimits(ctx context.Context, owner string) (list []api.QuotaLimit, err error) {
	err = p.quotaPages(ctx, ioctl.QuotaShowLimits, owner, func() { list = nil }, func(r *ioctl.QuotaPage) int {
		list = append(list, r.Limits...)
		return len(r.Limits)
	})
	return list, err
}

// QuotaUsage implements [api.Quotas].
func (p *pool) QuotaUsage(ctx context.Context, owner string) (list []api.QuotaUsage, err error) {
	err = p.quotaPages(ctx, ioctl.QuotaShowUsage, owner, func() { list = nil }, func(r *ioctl.QuotaPage) int {
		list = append(list, r.Usage...)
		return len(r.Usage)
	})
	return list, err
}

// QuotaClaims implements [api.Quotas].
func (p *pool) QuotaClaims(ctx context.Context, owner string) (list []api.QuotaClaim, err error) {
	err = p.quotaPages(ctx, ioctl.QuotaShowClaims, owner, func() { list = nil }, func(r *ioctl.QuotaPage) int {
		list = append(list, r.Claims...)
		return len(r.Claims)
	})
	return list, err
}

func (p *pool) quotaSet(ctx context.Context, m ioctl.QuotaSet) error {
	const op = ioctl.OpQuotaSet
	return p.run(ctx, op, once, func(l *link, h ioctl.Handle) error {
		m.Pool = h
		return l.do(ctx, op, &m, &ioctl.Empty{})
	})
}

// DefineQuotaClass implements [api.Quotas].
func (p *pool) DefineQuotaClass(ctx context.Context, c api.QuotaClass) error {
	return p.quotaSet(ctx, ioctl.QuotaSet{Verb: ioctl.QuotaDefine, Class: c})
}

// RemoveQuotaClass implements [api.Quotas].
func (p *pool) RemoveQuotaClass(ctx context.Context, name string) error {
	return p.quotaSet(ctx, ioctl.QuotaSet{Verb: ioctl.QuotaRemoveClass, Class: api.QuotaClass{Name: name}})
}

// SetQuotaLimit implements [api.Quotas].
func (p *pool) SetQuotaLimit(ctx context.Context, l api.QuotaLimit) error {
	return p.quotaSet(ctx, ioctl.QuotaSet{Verb: ioctl.QuotaSetLimit, Limit: l})
}

// UnsetQuotaLimit implements [api.Quotas].
func (p *pool) UnsetQuotaLimit(ctx context.Context, owner, class string) error {
	return p.quotaSet(ctx, ioctl.QuotaSet{Verb: ioctl.QuotaUnsetLimit, Limit: api.QuotaLimit{Owner: owner, Class: class}})
}

// AddQuotaOwner implements [api.Quotas].
func (p *pool) AddQuotaOwner(ctx context.Context, name, parent string) (string, error) {
	err := p.quotaSet(ctx, ioctl.QuotaSet{Verb: ioctl.QuotaAddOwner, Limit: api.QuotaLimit{Owner: name, Class: parent}})
	if parent != "" {
		name = parent + "/" + name
	}
	return name, err
}

// quotaClaim is a call about claims. Under a request id it may be made again.
func (p *pool) quotaClaim(ctx context.Context, m ioctl.QuotaClaim) ([]api.QuotaClaim, error) {
	const op = ioctl.OpQuotaClaim
	reply := &ioctl.QuotaPage{}
	how := once
	if m.Request != "" {
		how = again
	}
	err := p.run(ctx, op, how, func(l *link, h ioctl.Handle) error {
		m.Pool = h
		return l.do(ctx, op, &m, reply)
	})
	return reply.Claims, err
}

func (p *pool) oneClaim(ctx context.Context, m ioctl.QuotaClaim) (api.QuotaClaim, error) {
	list, err := p.quotaClaim(ctx, m)
	if err != nil || len(list) == 0 {
		return api.QuotaClaim{}, err
	}
	return list[0], nil
}

// ReserveQuota implements [api.Quotas].
func (p *pool) ReserveQuota(ctx context.Context, a api.QuotaAsk) (api.QuotaClaim, error) {
	return p.oneClaim(ctx, ioctl.QuotaClaim{
		Verb: ioctl.QuotaReserve, Ref: a.Parent, Owner: a.Owner, Amounts: a.Amounts, TTL: a.TTL, Request: a.Request,
	})
}

// ProvisionQuota implements [api.Quotas].
func (p *pool) ProvisionQuota(ctx context.Context, id, realID, request string) (api.QuotaClaim, error) {
	return p.oneClaim(ctx, ioctl.QuotaClaim{Verb: ioctl.QuotaProvision, Ref: id, Real: realID, Request: request})
}

// ResizeQuota implements [api.Quotas].
func (p *pool) ResizeQuota(ctx context.Context, ref string, amounts []api.QuotaAmount, request string) (api.QuotaClaim, error) {
	return p.oneClaim(ctx, ioctl.QuotaClaim{Verb: ioctl.QuotaResize, Ref: ref, Amounts: amounts, Request: request})
}

// ReleaseQuota implements [api.Quotas].
func (p *pool) ReleaseQuota(ctx context.Context, ref, request string) (api.QuotaClaim, error) {
	return p.oneClaim(ctx, ioctl.QuotaClaim{Verb: ioctl.QuotaRelease, Ref: ref, Request: request})
}

// TransferQuota implements [api.Quotas].
func (p *pool) TransferQuota(ctx context.Context, ref, owner, request string) (api.QuotaClaim, error) {
	return p.oneClaim(ctx, ioctl.QuotaClaim{Verb: ioctl.QuotaTransfer, Ref: ref, Owner: owner, Request: request})
}

// ExpireQuota implements [api.Quotas].
func (p *pool) ExpireQuota(ctx context.Context) ([]api.QuotaClaim, error) {
	return p.quotaClaim(ctx, ioctl.QuotaClaim{Verb: ioctl.QuotaExpire})
}
