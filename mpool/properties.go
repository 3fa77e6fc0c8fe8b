package mpool

import (
	"context"
	"unicode"
	"unicode/utf8"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// properties are a pool's settings, as its metadata holds them.
type properties struct {
	uid, gid, mode uint32
	label          string
	verify         bool // reads verify checksums
	spare          uint8
	shared         uint32 // sharedUnset, or 0 or 1 as recorded
}

// sharedUnset is the value of shared while the metadata does not have it.
const sharedUnset = ^uint32(0)

func (p *properties) encode(r *omf.Record) {
	r.PropertyNumber(omf.PropUID, p.uid)
	r.PropertyNumber(omf.PropGID, p.gid)
	r.PropertyNumber(omf.PropMode, p.mode)
	r.PropertyText(omf.PropLabel, p.label)
	verify := uint32(0)
	if p.verify {
		verify = 1
	}
	r.PropertyNumber(omf.PropReadVerify, verify)
	r.PropertyNumber(omf.PropSpare, uint32(p.spare))
	if p.shared != sharedUnset {
		r.PropertyNumber(omf.PropShared, p.shared)
	}
}

// replay takes a property operation of the metadata log.
func (p *properties) replay(op *omf.Op) {
	switch op.Property {
	case omf.PropUID:
		p.uid = op.Value
	case omf.PropGID:
		p.gid = op.Value
	case omf.PropMode:
		p.mode = op.Value
	case omf.PropLabel:
		p.label = op.Name
	case omf.PropReadVerify:
		p.verify = op.Value != 0
	case omf.PropSpare:
		p.spare = uint8(min(op.Value, maxSpare))
	case omf.PropShared:
		p.shared = min(op.Value, 1)
	}
}

// maxSpare bounds the spare share, in percent.
const maxSpare = 50

// change returns the properties after a change.
func (p *properties) change(s api.PoolSettings) (properties, error) {
	const op = "pool set"
	next := *p
	if s.UID != nil {
		next.uid = *s.UID
	}
	if s.GID != nil {
		next.gid = *s.GID
	}
	if s.Mode != nil {
		if *s.Mode&^0o777 != 0 {
			return next, api.Errorf(api.EINVAL, op, "mode %o has more than permission bits", *s.Mode)
		}
		next.mode = *s.Mode
	}
	if s.Label != nil {
		if len(*s.Label) > api.MaxLabel || !printable(*s.Label) {
			return next, api.Errorf(api.EINVAL, op, "label: want at most %d bytes of printable UTF-8", api.MaxLabel)
		}
		next.label = *s.Label
	}
	if s.ReadVerify != nil {
		next.verify = *s.ReadVerify
	}
	if s.SparePercent != nil {
		if *s.SparePercent > maxSpare {
			return next, api.Errorf(api.EINVAL, op, "spare_percent %d: at most %d", *s.SparePercent, maxSpare)
		}
		next.spare = *s.SparePercent
	}
	if s.Shared != nil {
		next.shared = 0
		if *s.Shared {
			next.shared = 1
		}
	}
	return next, nil
}

// Shared says whether an object is for everybody who may open the pool.
func (p *Pool) Shared() bool { return p.props.Load().shared == 1 }

// printable says whether s is UTF-8 that can be shown on one line.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Set changes the pool's properties in one transaction. Errors: EINVAL, EROFS.
func (p *Pool) Set(ctx context.Context, s api.PoolSettings) error {
	const op = "pool set"
	if err := p.admin.enter(ctx, op); err != nil {
		return err
	}
	next, err := p.props.Load().change(s)
	if err != nil {
		p.admin.leave()
		return err
	}
	t := &txn{op: op, ids: []layout.ObjectID{namesID}, settled: p.admin.leave, apply: func() {
		p.props.Store(&next)
		for _, d := range p.drives {
			d.zones.SetSpare(next.spare)
		}
	}}
	next.encode(&t.rec)
	return p.meta.commit(ctx, t)
}
