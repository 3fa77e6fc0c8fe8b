package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// A round's roots and what is committed with them.
const (
	rootNames   = 3
	batchesEach = 8 // of a connection
	maxBatches  = batchesEach * conns
	batchSize   = 2
)

// roots is the state of a round's named roots and batches.
type roots struct {
	now   [rootNames]uint64
	phase [maxBatches]uint8 // 0: not committed, 1: durable, 2: published
	seen  [maxBatches]uint8 // which objects were found while it was being published
	kills int
}

// rootsMachine is the model of named roots and of commits of many (S9, S12).
func rootsMachine(calls []*call) machine {
	with := make(map[int][]uint64)
	for _, c := range calls {
		if c.Do == doCommitMany {
			with[c.Batch] = c.Roots
		}
	}
	next := func(r roots, s step) []roots { return r.next(s, with) }
	return newMachine(roots{}, next, func(c *call) []part {
		if c.Do == doCommitMany && (c.Code == 0 || c.lost()) {
			return []part{second}
		}
		return nil
	})
}

// changed is the state with other roots.
func (r roots) changed(to []uint64) roots {
	for i, v := range to {
		if v != unchanged {
			r.now[i] = v
		}
	}
	return r
}

// can says whether roots can be changed so.
func (r roots) can(to []uint64) bool {
	for i, v := range to {
		if v == 0 && r.now[i] == 0 || v == nobody {
			return false
		}
	}
	return true
}

func (r roots) next(s step, with map[int][]uint64) []roots {
	c := s.call
	if c.Do == doKill {
		return r.killed(with)
	}
	if c.undone() {
		return []roots{r}
	}
	switch c.Do {
	case doRoots:
		return only(r, c.Code == 0 && slices.Equal(r.now[:], c.Roots))
	case doSet:
		done := r.changed(c.Roots)
		switch {
		case c.Code == api.ENOENT:
			return only(r, !r.can(c.Roots))
		case c.lost():
			return append(only(done, r.can(c.Roots)), r)
		}
		// After a kill it is looked whether the roots are as asked for.
		return only(done, c.Code == 0 && (r.can(c.Roots) || c.Torn && done == r))
	case doCommitMany:
		return r.commit(s)
	case doLook:
		bit := uint8(1) << c.N
		if c.Code == api.ENOENT {
			return only(r, r.phase[c.Batch] < 2 && r.seen[c.Batch]&bit == 0)
		}
		can := c.Code == 0 && r.phase[c.Batch] > 0
		if r.phase[c.Batch] == 1 {
			r.seen[c.Batch] |= bit
		}
		return only(r, can)
	}
	return nil
}

// commit is durable, then published with its roots.
func (r roots) commit(s step) []roots {
	c, before := s.call, r
	switch {
	case s.part == first && r.phase[c.Batch] == 0 && r.kills == c.Kills:
		r.phase[c.Batch] = 1
	case s.part == second && r.phase[c.Batch] == 1:
		r = r.published(c.Batch, c.Roots)
	case s.part == second && r.phase[c.Batch] == 2: // by a kill
	case !c.lost():
		return nil
	}
	if c.lost() {
		return either(r, before)
	}
	return only(r, c.Code == 0)
}

func (r roots) published(batch int, with []uint64) roots {
	r.phase[batch], r.seen[batch] = 2, 0
	return r.changed(with)
}

// killed: a commit under way was durable if anybody has seen of it, else perhaps.
func (r roots) killed(with map[int][]uint64) []roots {
	r.kills++
	list := []roots{r}
	for b := range r.phase {
		if r.phase[b] != 1 {
			continue
		}
		var after []roots
		for _, s := range list {
			after = append(after, s.published(b, with[b]))
			if r.seen[b] == 0 {
				s.phase[b] = 0
				after = append(after, s)
			}
		}
		list = after
	}
	return list
}

// nobody is the counter of an id that no object has.
const nobody = 1 << 40

// rootName is what a root is called in a round.
func (a *actor) rootName(i int) string { return fmt.Sprintf("r%d.%d", a.Round, i) }

// batchID is the id of an object of a batch.
func (a *actor) batchID(batch, i int) layout.ObjectID {
	return layout.NewObjectID(layout.KindMblock, a.Batches+uint64(batch*batchSize+i))
}

// named makes roots of places, for the pool.
func (a *actor) named(to []uint64) []api.Root {
	var list []api.Root
	for i, v := range to {
		switch v {
		case unchanged:
		case 0:
			list = append(list, api.Root{Name: a.rootName(i)})
		default:
			list = append(list, api.Root{Name: a.rootName(i), ID: layout.NewObjectID(layout.KindMblock, v)})
		}
	}
	return list
}

// roots changes, lists and commits with roots.
func (a *actor) roots(rng *rand.Rand) {
	ctx := context.Background()
	batch := a.conn * batchesEach
	last := batch + batchesEach
	for range a.Steps {
		switch n := rng.IntN(10); {
		case n < 4:
			a.list(ctx)
		case n < 6:
			// Of another connection's: one's own are found before they are committed.
			b := rng.IntN(maxBatches)
			if b/batchesEach == a.conn {
				continue
			}
			i := rng.IntN(batchSize)
			_ = a.call(&call{Do: doLook, Batch: b, N: uint64(i)}, func(*call) error { // recorded
				m, err := a.pool.Mblock(ctx, a.batchID(b, i))
				if err == nil {
					err = m.Put()
				}
				return err
			})
		case n == 6 && batch < last:
			a.commitMany(ctx, rng, batch)
			batch++
		default:
			to := a.someRoots(rng)
			_ = a.call(&call{Do: doSet, Roots: to}, func(*call) error { return a.pool.SetRoots(ctx, a.named(to)) }) // recorded
		}
	}
}

// someRoots draws what roots are to be: another object, none, or what is not.
func (a *actor) someRoots(rng *rand.Rand) []uint64 {
	to := slices.Repeat([]uint64{unchanged}, rootNames)
	for range 1 + rng.IntN(2) {
		i := rng.IntN(rootNames)
		switch rng.IntN(12) {
		case 0, 1, 2:
			to[i] = 0
		case 3:
			to[i] = nobody
		default:
			to[i] = a.Values[rng.IntN(len(a.Values))]
		}
	}
	return to
}

func (a *actor) list(ctx context.Context) {
	_ = a.call(&call{Do: doRoots}, func(c *call) error { // recorded
		list, err := a.pool.Roots(ctx)
		c.Roots = make([]uint64, rootNames)
		for _, r := range list {
			for i := range rootNames {
				if r.Name == a.rootName(i) {
					c.Roots[i] = r.ID.Counter()
				}
			}
		}
		return err
	})
}

// commitMany commits a batch, with one of its objects as a root.
func (a *actor) commitMany(ctx context.Context, rng *rand.Rand, batch int) {
	var objects []api.Object
	defer func() {
		for _, o := range objects {
			if o.Abort(ctx) != nil { // it is committed
				_ = o.Put() // its connection may be gone
			}
		}
	}()
	for i := range batchSize {
		m, err := a.pool.ReallocMblock(ctx, a.batchID(batch, i), api.AllocOptions{Capacity: 4096})
		if err != nil {
			return // the daemon is killed
		}
		objects = append(objects, m)
	}
	to := slices.Repeat([]uint64{unchanged}, rootNames)
	to[rng.IntN(rootNames)] = a.batchID(batch, 0).Counter()
	_ = a.call(&call{Do: doCommitMany, Batch: batch, Roots: to}, func(*call) error { // recorded
		return a.pool.CommitMany(ctx, objects, a.named(to))
	})
}
