package mpool

import (
	"context"
	"errors"
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mlog"
	"github.com/mpool-go/mpool/mpool/omf"
)

// recover rebuilds memory from the metadata drive.
func (p *Pool) recover(ctx context.Context) error {
	d := p.metaDrive().dev
	c := logConfigs(d, p.sb.Load(), p.opt)
	r := &replay{pool: p}
	r.forget()
	number := uint64(0)
	mdc, err := mlog.OpenMDC(ctx, mlog.MDCConfig{
		A: c[0], B: c[1], Discover: true, OnDurable: p.meta.onDurable, OnFailure: p.meta.fail,
		Replay: func(record []byte) error {
			number++
			if err := omf.DecodeRecord(record, r.op); err != nil {
				return &api.Error{
					Code: api.ECORRUPT, Op: opActivate, Device: d.Path(), Offset: c[0].Extent.Offset(),
					Detail: fmt.Sprintf("metadata record %d", number), Err: err,
				}
			}
			return nil
		},
		Expect: p.expect,
		Reset:  r.forget,
	})
	if err != nil {
		return err
	}
	r.settle()
	p.meta.mdc = mdc
	dropped, err := p.dropUnflushed(ctx)
	if err == nil {
		err = p.claimZones()
	}
	if err != nil {
		return errors.Join(err, mdc.Abandon())
	}
	if err := p.deleteDropped(ctx, dropped); err != nil {
		p.fence.close()
		return errors.Join(err, p.meta.close(context.Background()))
	}
	p.meta.confirm(&p.fence.touched)
	return nil
}

// expectMost bounds the objects that memory is taken for because a log says so
// which is not yet read: 80 MiB.
const expectMost = 1 << 24

// expect makes the table large enough for so many bytes of records of objects
// of one block, but for no more objects than there are zones.
func (p *Pool) expect(bytes int64) {
	var zones int64
	for _, d := range p.drives {
		zones += int64(d.geo.zones)
	}
	p.table.Reserve(int(min(bytes/omf.CreateBytes(1), zones, expectMost)))
}

// forget empties what the metadata log is replayed into.
func (p *Pool) forget() {
	p.table = layout.NewTable(p.sched)
	p.names.init(p.sched)
	p.ids.init(p)
	p.props.Store(&properties{mode: 0o660, verify: true, shared: sharedUnset})
}
