package sim

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/mpool/check"
)

func sum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// data is n bytes that nothing else holds.
func data(n, salt int) []byte {
	b := memory(n)
	x := uint32(salt)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// Ids of what ready makes: the first objects of a pool.
func mblockID(n uint64) layout.ObjectID { return layout.NewObjectID(layout.KindMblock, n) }

// putOne commits an mblock and returns its id.
func putOne(p *mpool.Pool, n, salt int) layout.ObjectID {
	b, err := p.PutMblock(ctx, api.AllocOptions{Tag: uint64(salt)}, data(n, salt))
	must(err)
	must(b.Put())
	return b.ID()
}

func putLog(p *mpool.Pool, records ...string) layout.ObjectID {
	l, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: 40000})
	must(err)
	must(l.Commit(ctx))
	a, err := l.OpenAppend(ctx)
	must(err)
	for _, rec := range records {
		_, err := a.Append(ctx, []byte(rec), true)
		must(err)
	}
	must(a.Close(ctx))
	must(l.Put())
	return l.ID()
}

// only returns the one object of a kind that has no partner.
func only(p *mpool.Pool, k layout.Kind) layout.ObjectID {
	var id layout.ObjectID
	for o, err := range p.Objects(ctx, api.Filter{Kind: k}) {
		must(err)
		if id == 0 || o.ID < id {
			id = o.ID
		}
	}
	return id
}

func theMblock(r *play) api.Mblock {
	b, err := r.p.Mblock(ctx, only(r.p, layout.KindMblock))
	must(err)
	return b
}

func theMlog(r *play) api.Mlog {
	l, err := r.p.Mlog(ctx, only(r.p, layout.KindMlog))
	must(err)
	return l
}

func oneMblock(p *mpool.Pool) { putOne(p, 20000, 1) }
func bigMblock(p *mpool.Pool) { putOne(p, 100000, 1) }
func oneLog(p *mpool.Pool)    { putLog(p, "first", string(data(5000, 2))) }
func oneContainer(p *mpool.Pool) {
	id, err := p.CreateMDC(ctx, api.AllocOptions{Capacity: 40000})
	must(err)
	c, err := p.OpenMDC(ctx, id)
	must(err)
	must(c.Append(ctx, []byte("old"), true))
	must(c.Close(ctx))
}

// scenarios are all public calls that do I/O.
func scenarios() []*scenario {
	return append(append(append(poolCalls(), mblockCalls()...), logCalls()...), combinations()...)
}

func poolCalls() []*scenario {
	return []*scenario{
		{name: "create", pristine: true, vague: true, steps: func(r *play) []step {
			return []step{{true, func() error { return r.create("p", api.CreateOptions{}) }}}
		}},
		{name: "create by force", vague: true, ruins: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error { return r.create("q", api.CreateOptions{Force: true}) }}}
		}},
		{name: "destroy", open: true, ends: true, vague: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error {
				err := r.p.Destroy(ctx)
				if err == nil {
					r.p = nil
				}
				return err
			}}}
		}},
		{name: "rename", open: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error { return r.p.Rename(ctx, "q") }}}
		}},
		{name: "activate", ready: oneLog, steps: func(r *play) []step {
			return []step{{false, func() (err error) {
				r.p, err = r.activate("p", api.ActivateOptions{})
				return err
			}}}
		}},
		{name: "resize", grown: true, ready: oneMblock, vague: true, steps: func(r *play) []step {
			return []step{{true, func() (err error) {
				r.p, err = r.activate("p", api.ActivateOptions{Resize: true})
				return err
			}}}
		}},
		{name: "deactivate", open: true, ends: true, ready: oneLog, steps: func(r *play) []step {
			return []step{
				{true, func() error { return appendOne(r, "more") }},
				{false, func() error {
					err := r.p.Close()
					if err == nil {
						r.p = nil
					}
					return err
				}},
			}
		}},
		{name: "set", open: true, steps: func(r *play) []step {
			label := "label"
			return []step{{true, func() error { return r.p.Set(ctx, api.PoolSettings{Label: &label}) }}}
		}},
		{name: "add owner", open: true, steps: func(r *play) []step {
			return []step{{true, func() error { _, err := r.p.AddOwner(ctx, "web", 0); return err }}}
		}},
		{name: "roots", open: true, ready: oneMblock, steps: func(r *play) []step {
			id := layout.ObjectID(0)
			return []step{
				{true, func() error {
					id = only(r.p, layout.KindMblock)
					return r.p.SetRoots(ctx, []api.Root{{Name: "a", ID: id}, {Name: "b", ID: id}})
				}},
				{true, func() error { return r.p.SetRoots(ctx, []api.Root{{Name: "a"}}) }},
			}
		}},
		{name: "a full metadata log", open: true, ready: twoMblocks, steps: manyRoots},
		{name: "scrub", open: true, ready: bigMblock, steps: func(r *play) []step {
			return []step{{false, func() error {
				st, err := r.p.Scrub(ctx, api.ScrubCursor{}, 1<<30)
				if err == nil && len(st.Problems) > 0 {
					return fmt.Errorf("%+v", st.Problems)
				}
				return err
			}}}
		}},
		{name: "repair", apart: true, ready: oneMblock, vague: true, damage: func(d devsim.Rack) { d[0].FlipBit(1<<20+100, 3) }, steps: func(r *play) []step {
			return []step{{false, func() error {
				_, err := check.Repair(ctx, r.disks.Paths(), check.Options{Data: true, Reads: 1, OpenTarget: r.repairTarget})
				return err
			}}}
		}},
	}
}

func twoMblocks(p *mpool.Pool) { oneMblock(p); putOne(p, 10, 2) }

// manyRoots fills the metadata log until it is compacted.
func manyRoots(r *play) []step {
	list := make([]step, 16)
	for i := range list {
		list[i] = step{true, func() error {
			first := only(r.p, layout.KindMblock)
			ids := []layout.ObjectID{first, first + 1}
			roots := make([]api.Root, 30)
			for k := range roots {
				roots[k] = api.Root{Name: fmt.Sprintf("%02d-%059d", k, 0), ID: ids[(k+i)%2]}
			}
			return r.p.SetRoots(ctx, roots)
		}}
	}
	return list
}

func mblockCalls() []*scenario {
	var list []*scenario
	for _, c := range []struct {
		name  string
		size  int
		class api.Class
	}{{"small", 5000, 0}, {"with pages of checksums", 90000, 0}, {"in staging", 20000, api.ClassStaging}} {
		list = append(list, &scenario{name: "commit an mblock " + c.name, open: true, steps: func(r *play) []step {
			var b api.Mblock
			return []step{
				{false, func() (err error) {
					b, err = r.p.AllocMblock(ctx, api.AllocOptions{Capacity: 200000, Class: c.class})
					return err
				}},
				{false, func() error { _, err := b.Write(ctx, data(c.size&^4095, 3)); return err }},
				{false, func() error { _, err := b.Write(ctx, data(c.size&4095, 4)); return err }},
				{true, func() error { return b.Commit(ctx) }},
			}
		}})
	}
	return append(list,
		&scenario{name: "put an mblock", open: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error { _, err := r.p.PutMblock(ctx, api.AllocOptions{}, data(9000, 9)); return err }}}
		}},
		&scenario{name: "realloc", open: true, steps: func(r *play) []step {
			var b api.Mblock
			return []step{
				{false, func() (err error) {
					b, err = r.p.ReallocMblock(ctx, mblockID(5_000_000), api.AllocOptions{Capacity: 5000})
					return err
				}},
				{false, func() error { _, err := b.Write(ctx, data(5000, 3)); return err }},
				{true, func() error { return b.Commit(ctx) }},
			}
		}},
		&scenario{name: "abort", open: true, steps: func(r *play) []step {
			var b api.Mblock
			return []step{
				{false, func() (err error) {
					b, err = r.p.AllocMblock(ctx, api.AllocOptions{Capacity: 5000})
					return err
				}},
				{false, func() error { _, err := b.Write(ctx, data(5000, 3)); return err }},
				{false, func() error { return b.Abort(ctx) }},
			}
		}},
		&scenario{name: "commit many", open: true, ready: oneMblock, steps: func(r *play) []step {
			var list []api.Object
			var steps []step
			for i := range 3 {
				steps = append(steps, step{false, func() error {
					b, err := r.p.AllocMblock(ctx, api.AllocOptions{Capacity: 30000, Class: api.Class(i % 2)})
					if err == nil {
						list = append(list, b)
					}
					return err
				}}, step{false, func() error { _, err := list[i].(api.Mblock).Write(ctx, data(8000, i)); return err }})
			}
			return append(steps, step{false, func() error {
				l, err := r.p.AllocMlog(ctx, api.AllocOptions{Capacity: 30000})
				if err == nil {
					list = append(list, l)
				}
				return err
			}}, step{true, func() error {
				return r.p.CommitMany(ctx, list, []api.Root{{Name: "many", ID: list[1].ID()}})
			}})
		}},
		&scenario{name: "read", open: true, ready: bigMblock, steps: func(r *play) []step {
			return []step{{false, func() error { return readBack(theMblock(r), data(100000, 1)) }}}
		}},
		&scenario{name: "delete an mblock", open: true, ready: oneMblock, steps: func(r *play) []step {
			return []step{{true, func() error { return theMblock(r).Delete(ctx) }}}
		}},
	)
}

// readBack reads an mblock; what it returns without an error is what was written.
func readBack(b api.Mblock, want []byte) error {
	got := memory(len(want))
	n, err := b.ReadAt(got, 0)
	if string(got[:n]) != string(want[:n]) {
		must(fmt.Errorf("a read of %d bytes returned wrong ones (S14)", n))
	}
	return errors.Join(err, b.Put())
}

func appendOne(r *play, rec string) error {
	l := theMlog(r)
	a, err := l.OpenAppend(ctx)
	if err == nil {
		_, err = a.Append(ctx, []byte(rec), true)
		err = errors.Join(err, a.Close(ctx))
	}
	return errors.Join(err, l.Put())
}

func logCalls() []*scenario {
	return []*scenario{
		{name: "commit a log", open: true, steps: func(r *play) []step {
			var l api.Mlog
			return []step{
				{false, func() (err error) { l, err = r.p.AllocMlog(ctx, api.AllocOptions{Capacity: 40000}); return err }},
				{true, func() error { return l.Commit(ctx) }},
			}
		}},
		{name: "append", open: true, ready: oneLog, steps: func(r *play) []step {
			var a api.Appender
			add := func(n, salt int, sync bool) func() error {
				return func() error { _, err := a.Append(ctx, data(n, salt), sync); return err }
			}
			return []step{
				{false, func() (err error) { a, err = theMlog(r).OpenAppend(ctx); return err }},
				{true, add(100, 1, true)},
				{true, add(9000, 2, true)},
				{true, func() error { return errors.Join(add(300, 3, false)(), a.Sync(ctx)) }},
				{false, func() error { return a.Close(ctx) }},
			}
		}},
		{name: "read a log", open: true, ready: oneLog, steps: func(r *play) []step {
			return []step{{false, func() error {
				l := theMlog(r)
				rd, err := l.OpenRead(ctx)
				if err != nil {
					return err
				}
				got, err := readAll(rd)
				if err == nil && (len(got) != 2 || got[0] != "first" || got[1] != string(data(5000, 2))) {
					must(fmt.Errorf("a log of 2 records is read as %d (S20)", len(got)))
				}
				return errors.Join(err, rd.Close(), l.Put())
			}}}
		}},
		{name: "erase", open: true, ready: oneLog, steps: func(r *play) []step {
			return []step{
				{true, func() error { return theMlog(r).Erase(ctx, 5) }},
				{true, func() error { return appendOne(r, "after the erase") }},
			}
		}},
		{name: "delete a log", open: true, ready: oneLog, steps: func(r *play) []step {
			return []step{{true, func() error { return theMlog(r).Delete(ctx) }}}
		}},
		{name: "create a container", open: true, steps: func(r *play) []step {
			return []step{{true, func() error { _, err := r.p.CreateMDC(ctx, api.AllocOptions{Capacity: 40000}); return err }}}
		}},
		{name: "use a container", open: true, ready: oneContainer, steps: func(r *play) []step {
			var c api.MDC
			return []step{
				{false, func() (err error) { c, err = r.p.OpenMDC(ctx, only(r.p, layout.KindMlog)); return err }},
				{true, func() error { return c.Append(ctx, []byte("second"), true) }},
				{false, func() error { return c.CompactStart(ctx) }},
				{false, func() error { return c.CompactAppend(ctx, data(5000, 7)) }},
				{true, func() error { return c.Append(ctx, []byte("third"), true) }},
				{true, func() error { return c.CompactEnd(ctx) }},
				{true, func() error { return c.Append(ctx, []byte("fourth"), true) }},
				{false, func() error { return c.Close(ctx) }},
			}
		}},
		{name: "delete a container", open: true, ready: oneContainer, steps: func(r *play) []step {
			return []step{{true, func() error { return r.p.DeleteMDC(ctx, only(r.p, layout.KindMlog)) }}}
		}},
	}
}
