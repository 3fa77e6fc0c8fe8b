package server

import (
	"context"
	"iter"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

func (p *fakePool) alloc(ctx context.Context, op string, kind layout.Kind, id layout.ObjectID, o api.AllocOptions) (*fakeHandle, error) {
	if err := p.begin(ctx, op); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.Capacity < 0 {
		return nil, api.Errorf(api.EINVAL, op, "capacity %d", o.Capacity)
	}
	if id == 0 {
		id = layout.NewObjectID(kind, p.next)
		p.next++
	}
	if p.objects[id] != nil {
		return nil, api.Errorf(api.EEXIST, op, "%v lives", id)
	}
	x := &fakeObject{p: p, id: id, o: o, state: api.StateUncommitted, refs: 1, gen: 1}
	p.objects[id] = x
	return &fakeHandle{o: x}, nil
}

func (p *fakePool) find(ctx context.Context, op string, kind layout.Kind, id layout.ObjectID) (*fakeHandle, error) {
	if err := p.begin(ctx, op); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if id.Kind() != kind {
		return nil, api.Errorf(api.EINVAL, op, "not a %v", kind)
	}
	o := p.objects[id]
	if o == nil {
		return nil, &api.Error{Code: api.ENOENT, Op: op, Object: id, Detail: "no such object"}
	}
	o.refs++
	return &fakeHandle{o: o}, nil
}

func (p *fakePool) AllocMblock(ctx context.Context, o api.AllocOptions) (api.Mblock, error) {
	h, err := p.alloc(ctx, "mblock alloc", layout.KindMblock, 0, o)
	if err != nil {
		return nil, err
	}
	return &fakeMblock{h}, nil
}

func (p *fakePool) PutMblock(ctx context.Context, o api.AllocOptions, data []byte) (api.Mblock, error) {
	m, err := p.AllocMblock(ctx, o)
	if err == nil {
		_, err = m.Write(ctx, data)
	}
	if err == nil {
		err = m.Commit(ctx)
	}
	return m, err
}

func (p *fakePool) ReallocMblock(ctx context.Context, id layout.ObjectID, o api.AllocOptions) (api.Mblock, error) {
	h, err := p.alloc(ctx, "mblock realloc", layout.KindMblock, id, o)
	if err != nil {
		return nil, err
	}
	return &fakeMblock{h}, nil
}

func (p *fakePool) Mblock(ctx context.Context, id layout.ObjectID) (api.Mblock, error) {
	h, err := p.find(ctx, "mblock find", layout.KindMblock, id)
	if err != nil {
		return nil, err
	}
	return &fakeMblock{h}, nil
}

func (p *fakePool) AllocMlog(ctx context.Context, o api.AllocOptions) (api.Mlog, error) {
	h, err := p.alloc(ctx, "mlog alloc", layout.KindMlog, 0, o)
	if err != nil {
		return nil, err
	}
	return &fakeMlog{h}, nil
}

func (p *fakePool) Mlog(ctx context.Context, id layout.ObjectID) (api.Mlog, error) {
	h, err := p.find(ctx, "mlog find", layout.KindMlog, id)
	if err != nil {
		return nil, err
	}
	return &fakeMlog{h}, nil
}

func (p *fakePool) CreateMDC(ctx context.Context, o api.AllocOptions) (layout.ObjectID, error) {
	h, err := p.alloc(ctx, "mdc create", layout.KindMlog, 0, o)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.o.state, h.o.refs = api.StateCommitted, 0
	return h.o.id, nil
}

func (p *fakePool) OpenMDC(ctx context.Context, id layout.ObjectID) (api.MDC, error) {
	h, err := p.find(ctx, "mdc open", layout.KindMlog, id)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.o.append {
		h.o.refs--
		return nil, api.Errorf(api.EBUSY, "mdc open", "open already")
	}
	h.o.append = true
	p.closers++
	return &fakeMDC{h: h}, nil
}

func (p *fakePool) DeleteMDC(_ context.Context, id layout.ObjectID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.objects, id)
	return nil
}

func (p *fakePool) Objects(ctx context.Context, f api.Filter) iter.Seq2[api.ObjectInfo, error] {
	return func(yield func(api.ObjectInfo, error) bool) {
		if err := p.begin(ctx, "object list"); err != nil {
			yield(api.ObjectInfo{}, err)
			return
		}
		p.mu.Lock()
		var list []api.ObjectInfo
		for _, o := range p.objects {
			if f.Kind == 0 || f.Kind == o.id.Kind() {
				list = append(list, o.info())
			}
		}
		p.mu.Unlock()
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
}
