package objectcache

import (
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/layout"
)

// proves G50: while something is held of an mblock that the process itself has deleted and
// made anew, nobody is told a version, which might be that of the one before; and when it
// is released the new one is.
func TestSpoiledWhileHeld(t *testing.T) {
	_, pools := ownPools(t)
	p, ctx := pools[0], t.Context()
	remake := func(id layout.ObjectID, text string) layout.ObjectID {
		t.Helper()
		var m api.Mblock
		var err error
		if id == 0 {
			m, err = p.AllocMblock(ctx, api.AllocOptions{Capacity: 64 << 10})
		} else {
			m, err = p.ReallocMblock(ctx, id, api.AllocOptions{Capacity: 64 << 10})
		}
		if err == nil {
			_, err = m.Write(ctx, []byte(text))
		}
		if err == nil {
			err = m.Commit(ctx)
		}
		if err == nil {
			err = m.Put()
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.ID()
	}
	hold := func(id layout.ObjectID) *client.Hold {
		t.Helper()
		h, err := p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditRead})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	release := func(h *client.Hold) {
		t.Helper()
		if err := h.Release(); err != nil {
			t.Fatal(err)
		}
	}
	id := remake(0, "the first")
	before := hold(id)
	m, err := p.Mblock(ctx, id)
	if err == nil {
		err = m.Delete(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	remake(id, "the second")
	between := hold(id)
	if v := between.Version(); v != (credit.Version{}) {
		t.Errorf("version %v while what was held of the one before is; that had %v", v, before.Version())
	}
	release(between)
	release(before)
	after := hold(id)
	if v := after.Version(); v == before.Version() || v == (credit.Version{}) {
		t.Errorf("version %v when all was released; the one before had %v", v, before.Version())
	}
	release(after)
}
