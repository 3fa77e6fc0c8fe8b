package sim

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// combinations are calls that meet each other or a bound, swept as each call is.
func combinations() []*scenario {
	return append(poolCombinations(), objectCombinations()...)
}

func poolCombinations() []*scenario {
	return []*scenario{
		{name: "rename within a scrub", open: true, ready: bigMblock, steps: func(r *play) []step {
			var at api.ScrubCursor
			scrub := func(bytes int64) func() error {
				return func() error {
					st, err := r.p.Scrub(ctx, at, bytes)
					if err == nil && len(st.Problems) > 0 {
						return fmt.Errorf("%+v", st.Problems)
					}
					at = st.Next
					return err
				}
			}
			return []step{
				{false, scrub(40000)},
				{true, func() error { return r.p.Rename(ctx, "q") }},
				{false, scrub(40000)},
				{true, func() error { return r.p.Rename(ctx, "p") }},
				{false, scrub(1 << 30)},
			}
		}},
		{name: "rename and destroy", open: true, ends: true, vague: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error { return r.p.Rename(ctx, "q") }}, {true, func() error {
				err := r.p.Destroy(ctx)
				if err == nil {
					r.p = nil
				}
				return err
			}}}
		}},
		{name: "names at their limits", open: true, ready: oneMblock, steps: func(r *play) []step {
			label := strings.Repeat("l", api.MaxLabel)
			return []step{
				{true, func() error { return r.p.Set(ctx, api.PoolSettings{Label: &label}) }},
				{true, func() error {
					_, err := r.p.AddOwner(ctx, strings.Repeat("o", api.MaxOwnerName), 0)
					return err
				}},
				{true, func() error {
					return r.p.SetRoots(ctx, []api.Root{{Name: strings.Repeat("r", api.MaxRootName), ID: only(r.p, layout.KindMblock)}})
				}},
			}
		}},
		{name: "resize and use", grown: true, ready: oneMblock, vague: true, steps: func(r *play) []step {
			return []step{{true, func() (err error) {
				r.p, err = r.activate("p", api.ActivateOptions{Resize: true})
				return err
			}}, {true, func() error { return theMblock(r).Delete(ctx) }}, {true, func() error {
				_, err := r.p.PutMblock(ctx, api.AllocOptions{Class: api.ClassStaging}, data(70000, 6))
				return err
			}}}
		}},
		{name: "roots with a commit", open: true, ready: oneMblock, steps: func(r *play) []step {
			old := layout.ObjectID(0)
			var b api.Mblock
			return []step{
				{true, func() error {
					old = only(r.p, layout.KindMblock)
					return r.p.SetRoots(ctx, []api.Root{{Name: "a", ID: old}, {Name: "b", ID: old}})
				}},
				{false, func() (err error) { b, err = r.p.AllocMblock(ctx, api.AllocOptions{Capacity: 5000}); return err }},
				{false, func() error { _, err := b.Write(ctx, data(5000, 3)); return err }},
				{true, func() error {
					was, err := r.p.Mblock(ctx, old) // is committed
					if err != nil {
						return err
					}
					err = r.p.CommitMany(ctx, []api.Object{was, b}, []api.Root{{Name: "a", ID: b.ID()}, {Name: "b"}, {Name: "c", ID: old}})
					return errors.Join(err, was.Put())
				}},
				{true, func() error { return r.p.SetRoots(ctx, []api.Root{{Name: "a", ID: old}, {Name: "c"}}) }},
			}
		}},
	}
}

func objectCombinations() []*scenario {
	return []*scenario{
		{name: "checksum pages at an extent's end", open: true, ready: oneMblock, steps: func(r *play) []step {
			const blocks = 2*zoneSize/layout.BlockSize - 1 // and one page of checksums
			var b api.Mblock
			return []step{
				{false, func() (err error) {
					b, err = r.p.AllocMblock(ctx, api.AllocOptions{Capacity: blocks * layout.BlockSize})
					return err
				}},
				{false, func() error { _, err := b.Write(ctx, data(blocks*layout.BlockSize, 3)); return err }},
				{true, func() error { return b.Commit(ctx) }},
				{false, func() error {
					info, err := b.Info(ctx)
					if err == nil && info.Used != 2*zoneSize {
						must(fmt.Errorf("it uses %d bytes", info.Used))
					}
					if err != nil {
						return err
					}
					again, err := r.p.Mblock(ctx, b.ID())
					if err != nil {
						return err
					}
					return readBack(again, data(blocks*layout.BlockSize, 3))
				}},
			}
		}},
		{name: "an extent used again", open: true, ready: bigMblock, steps: func(r *play) []step {
			var id layout.ObjectID
			var b api.Mblock
			return []step{
				{true, func() error { id = only(r.p, layout.KindMblock); return theMblock(r).Delete(ctx) }},
				{false, func() (err error) {
					b, err = r.p.ReallocMblock(ctx, id, api.AllocOptions{Capacity: 100000})
					return err
				}},
				{false, func() error { _, err := b.Write(ctx, data(100000, 8)); return err }},
				{true, func() error { return b.Commit(ctx) }},
				{false, func() error {
					again, err := r.p.Mblock(ctx, id)
					if err != nil {
						return err
					}
					return readBack(again, data(100000, 8))
				}},
			}
		}},
		{name: "a full log, erased", open: true, ready: oneLog, steps: func(r *play) []step {
			fill := func() error {
				l := theMlog(r)
				a, err := l.OpenAppend(ctx)
				for err == nil {
					_, err = a.Append(ctx, data(9000, 5), false)
				}
				if errors.Is(err, api.EFBIG) {
					err = nil
				}
				if a != nil {
					err = errors.Join(err, a.Close(ctx))
				}
				return errors.Join(err, l.Put())
			}
			return []step{
				{true, fill},
				{true, func() error { return theMlog(r).Erase(ctx, math.MaxUint64) }},
				{true, fill},
			}
		}},
		{name: "a compaction given up", open: true, ready: oneContainer, steps: func(r *play) []step {
			var c api.MDC
			return []step{
				{false, func() (err error) { c, err = r.p.OpenMDC(ctx, only(r.p, layout.KindMlog)); return err }},
				{false, func() error { return c.CompactStart(ctx) }},
				{false, func() error { return c.CompactAppend(ctx, data(5000, 7)) }},
				{true, func() error { return c.Append(ctx, []byte("second"), true) }},
				{false, func() error { return c.CompactAbort(ctx) }},
				{true, func() error { return c.Append(ctx, []byte("third"), true) }},
				{false, func() error { return c.CompactStart(ctx) }},
				{true, func() error { return c.CompactEnd(ctx) }},
				{false, func() error { return c.Close(ctx) }},
			}
		}},
	}
}
