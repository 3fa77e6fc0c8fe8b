package mpool

import (
	"testing"

	"github.com/mpool-go/mpool/api"
)

// Who waits for space is told of what an allocation that failed gives back, and
// never sees it draining; an allocation that finds too little tells nobody, itself
// least of all.
//
// proves S41
func TestSpaceGivenBackIsTold(t *testing.T) {
	r := newRackRig(t, 1, 16*mib, 2, 0)
	r.run(func() {
		r.create(api.CreateOptions{})
		p := r.activate()
		d, was := p.drives[0], p.freed.count()
		before := d.zones.Usage()
		if runs := d.take(1, int(before.Total), false); runs != nil {
			t.Errorf("took %d runs of %d zones", len(runs), before.Total)
		}
		if n := p.freed.count(); n != was {
			t.Error("an allocation that finds too little wakes those who wait, and so itself")
		}
		seen := false
		r.s.Go("watch", func() {
			for range 100 {
				seen = seen || d.zones.Usage().Draining > 0
			}
		})
		for range 20 {
			run, err := d.zones.Alloc(1, false)
			r.ok(err)
			d.unplace(run)
		}
		if p.freed.count() == was {
			t.Error("nobody is told")
		}
		r.ok(p.Close())
		if u := d.zones.Usage(); u != before || seen {
			t.Errorf("%+v, then %+v; seen draining: %v", before, u, seen)
		}
	})
}
