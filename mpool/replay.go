package mpool

import (
	"fmt"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool/omf"
)

// replayBatch is how many creates in a row go into the table together: one alone
// waits longest for the memory that it goes to.
const replayBatch = 32

// replay brings the metadata's operations into a pool's memory, in order. settle
// ends it.
type replay struct {
	pool *Pool
	list []layout.Object // created and not yet in the table
	sums [replayBatch][layout.MaxInlineSums]uint32
}

// op applies one operation. Operations are upserts by id and birth stamp:
// what a compaction wrote and what went on meanwhile overlap.
func (r *replay) op(op *omf.Op) error {
	p, o := r.pool, &op.Object
	if op.Type != omf.OpCreate {
		r.settle()
	}
	switch op.Type {
	case omf.OpCreate:
		return r.create(o)
	case omf.OpDelete:
		if now, ok := p.table.Lookup(o.ID); ok && now.Birth == o.Birth {
			p.table.Delete(o.ID)
		}
	case omf.OpErase, omf.OpUpdate, omf.OpRelocate:
		p.table.Update(o.ID, func(e *layout.Object) {
			if e.Birth != o.Birth {
				return
			}
			switch op.Type { //nolint:exhaustive // the three of this case
			case omf.OpErase:
				e.Generation = o.Generation
			case omf.OpUpdate:
				e.Owner, e.Tag = o.Owner, o.Tag
			default:
				e.Extent = o.Extent
			}
		})
	case omf.OpRoot:
		p.names.setRoots([]api.Root{{Name: op.Name, ID: o.ID}})
	case omf.OpOwner:
		if !p.names.addOwner(api.Owner{Index: op.Index, Parent: op.Parent, Name: op.Name}) {
			return fmt.Errorf("owner %d comes before its predecessors or its parent %d", op.Index, op.Parent)
		}
	case omf.OpProperty:
		props := *p.props.Load()
		props.replay(op)
		p.props.Store(&props)
	case omf.OpCounter:
		p.ids.replay(op.NextID, op.Birth)
	case omf.OpDrive: // history; the superblock's table is what counts
	}
	return nil
}

func (r *replay) create(o *layout.Object) error {
	if r.pool.byslot[o.Extent.Drive] == nil {
		return fmt.Errorf("object %v lies on drive %d, which the pool does not have", o.ID, o.Extent.Drive)
	}
	n := len(r.list)
	r.list = append(r.list, *o)
	r.list[n].Sums = append(r.sums[n][:0], o.Sums...)
	if n+1 == replayBatch {
		r.settle()
	}
	return nil
}

// settle puts what was created into the table.
func (r *replay) settle() {
	r.pool.table.UpsertAll(r.list)
	r.list = r.list[:0]
}

// forget begins anew: what came so far does not count.
func (r *replay) forget() {
	r.list = r.list[:0]
	r.pool.forget()
}
