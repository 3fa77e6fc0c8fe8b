package mpool

import (
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
)

// proves S26 S27: what is committed while compactions of the metadata begin, go on
// and end is there after a restart, and what is deleted is not. All delete, then all
// create: so that compactions write objects whose deletes are under way, and begin,
// too, when nothing but creates is, of which the table knows nothing yet.
func TestCommitsDuringCompactions(t *testing.T) {
	const tasks, each, rounds = 8, 6, 8
	compactions := 0
	for seed := range seeds(20) {
		r := newRig(t, seed, 24<<20)
		r.meta = 48 << 10
		r.run(func() {
			r.create(api.CreateOptions{})
			p := r.activate()
			var mine [tasks][]layout.ObjectID
			all := func(f func(n int)) {
				var done [tasks]sched.Completion
				for n := range tasks {
					done[n].Init(r.s)
					r.s.Go("worker", func() {
						defer done[n].Done()
						f(n)
					})
				}
				for n := range tasks {
					r.ok(done[n].Wait(bg))
				}
			}
			compact := func() {
				p.meta.mu.Lock()
				defer p.meta.mu.Unlock()
				p.meta.compactLocked()
			}
			for round := range rounds {
				all(func(n int) {
					for i := range mine[n] {
						if n == i {
							compact()
						}
						r.ok(r.remove(p, mine[n][i]))
					}
					mine[n] = nil
				})
				if round == rounds-1 && seed%2 == 0 {
					break // what a compaction wrote here, no other one puts right
				}
				all(func(n int) {
					for i := range each {
						mine[n] = append(mine[n], r.put(p, 0))
						if n == i {
							compact()
						}
					}
				})
			}
			p.meta.mu.Lock()
			compactions += int(p.meta.compactions)
			p.meta.mu.Unlock()
			r.ok(p.Close())
			p = r.activate()
			live := make(map[layout.ObjectID]bool)
			for _, ids := range mine {
				for _, id := range ids {
					live[id] = true
				}
			}
			found := 0
			for o, err := range p.Objects(bg, api.Filter{}) {
				r.ok(err)
				found++
				if !live[o.ID] {
					t.Errorf("seed %d: %v is there; it was deleted", seed, o.ID)
				}
			}
			if found != len(live) {
				t.Errorf("seed %d: %d objects are there; %d were committed", seed, found, len(live))
			}
			r.ok(p.Close())
		})
	}
	if compactions < 8 {
		t.Errorf("%d compactions", compactions)
	}
}
