package ioctl

import (
	"context"
	"errors"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// MaxHolders is how many holders an error names at most.
const MaxHolders = 256

// Error is the body of a reply with FlagError: an api.Error. Of a cause only
// the text travels.
type Error struct {
	Code    api.Code
	Op      string
	Object  layout.ObjectID
	Device  string
	Offset  int64
	Want    int64
	Have    int64
	Longest int64
	Holders []api.Holder
	Refusal *api.Refusal // only to who knows FeatureRefusal
	Detail  string
	Cause   string
}

const (
	errorSize  = 48
	holderSize = 8

	refusalSize = 24
)

func (m *Error) encode(w *writer) {
	b := w.block(errorSize)
	le.PutUint16(b[0:], uint16(m.Code))
	b[2] = bit(m.Refusal != nil, 1)
	le.PutUint64(b[8:], uint64(m.Object))
	le.PutUint64(b[16:], uint64(m.Offset))
	le.PutUint64(b[24:], uint64(m.Want))
	le.PutUint64(b[32:], uint64(m.Have))
	le.PutUint64(b[40:], uint64(m.Longest))
	w.cut(m.Op, MaxName)
	w.cut(m.Device, MaxPath)
	w.cut(m.Detail, MaxText)
	w.cut(m.Cause, MaxText)
	holders := m.Holders[:min(len(m.Holders), MaxHolders)]
	w.count(len(holders), MaxHolders, "holders")
	for _, h := range holders {
		b := w.block(holderSize)
		le.PutUint32(b[0:], uint32(h.PID))
		le.PutUint32(b[4:], h.References)
	}
	if m.Refusal != nil {
		b := w.block(refusalSize)
		le.PutUint64(b[0:], uint64(m.Refusal.Used))
		le.PutUint64(b[8:], uint64(m.Refusal.Asked))
		le.PutUint64(b[16:], uint64(m.Refusal.Limit))
		w.cut(m.Refusal.Class, MaxQuotaText)
		w.cut(m.Refusal.Owner, MaxQuotaText)
	}
}

func (m *Error) decode(r *reader) {
	b := r.block(errorSize)
	m.Code = api.Code(le.Uint16(b[0:]))
	r.bits(b[2], 1)
	refusal := b[2]&1 != 0
	r.reserved(b[3:8])
	m.Object = layout.ObjectID(le.Uint64(b[8:]))
	m.Offset = int64(le.Uint64(b[16:]))
	m.Want = int64(le.Uint64(b[24:]))
	m.Have = int64(le.Uint64(b[32:]))
	m.Longest = int64(le.Uint64(b[40:]))
	m.Op = r.str(MaxName)
	m.Device = r.str(MaxPath)
	m.Detail = r.str(MaxText)
	m.Cause = r.str(MaxText)
	n := r.count(MaxHolders, holderSize)
	for range n {
		b := r.block(holderSize)
		m.Holders = append(m.Holders, api.Holder{
			PID:        int32(le.Uint32(b[0:])),
			References: le.Uint32(b[4:]),
		})
	}
	if refusal {
		b := r.block(refusalSize)
		m.Refusal = &api.Refusal{
			Used: int64(le.Uint64(b[0:])), Asked: int64(le.Uint64(b[8:])), Limit: int64(le.Uint64(b[16:])),
			Class: r.str(MaxQuotaText), Owner: r.str(MaxQuotaText),
		}
	}
	if m.Code == 0 {
		r.fail("an error without a code")
	}
}

// NewError makes the wire form of an error, which must not be nil.
func NewError(err error) *Error {
	var e *api.Error
	if !errors.As(err, &e) {
		return &Error{Code: api.CodeOf(err), Detail: err.Error()}
	}
	m := &Error{
		Code: e.Code, Op: e.Op, Object: e.Object, Device: e.Device, Offset: e.Offset,
		Want: e.Want, Have: e.Have, Longest: e.Longest, Holders: e.Holders, Refusal: e.Refusal, Detail: e.Detail,
	}
	if m.Code == 0 {
		m.Code = api.CodeOf(e.Err)
	}
	if m.Code == 0 {
		m.Code = api.EIO
	}
	if e.Err != nil {
		m.Cause = e.Err.Error()
	}
	return m
}

// API returns the error that the wire form stands for. One that says that the
// request's time was up wraps the context package's error for it.
func (m *Error) API() *api.Error {
	e := &api.Error{
		Code: m.Code, Op: m.Op, Object: m.Object, Device: m.Device, Offset: m.Offset,
		Want: m.Want, Have: m.Have, Longest: m.Longest, Holders: m.Holders, Refusal: m.Refusal, Detail: m.Detail,
	}
	switch {
	case m.Code == api.ETIMEDOUT:
		e.Err = context.DeadlineExceeded
	case m.Code == api.ECANCELED:
		e.Err = context.Canceled
	case m.Cause != "":
		e.Err = errors.New(m.Cause)
	}
	return e
}
