package metamorphic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// world does a list of operations with a pool.
type world struct {
	ctx  context.Context
	pool api.Pool
	// reopen deactivates the pool and activates it; restart does so without a word to
	// it, as a death does; grow with larger drives.
	reopen, restart, grow func() (api.Pool, error)

	step       int
	blocks     [blockSlots]api.Mblock
	logs       [logSlots]api.Mlog
	appenders  [logSlots]api.Appender
	readers    [logSlots]api.LogReader
	containers [containerSlots]api.MDC

	born  []layout.ObjectID // all ids that were given, in their order
	mdcs  [containerSlots]layout.ObjectID
	names map[layout.ObjectID]string
}

// play does the operations and returns what each of them gave.
func (w *world) play(list []op) []string {
	w.ctx, w.names = context.Background(), make(map[layout.ObjectID]string)
	var results []string
	for i, o := range list {
		w.step = i
		results = append(results, w.do(o))
	}
	w.step = len(list)
	results = append(results, w.objects(), w.roots(), w.do(op{do: "reopen"}), w.objects(), w.roots())
	w.release()
	return results
}

// data is what an operation writes: it depends on the operation's place in the list.
func (w *world) data(n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(w.step), 9))
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := rng.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

// said is an error as programs see it.
func said(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "EOF"
	}
	return api.CodeOf(err).Error()
}

func saidOf(b []byte, err error) string {
	return fmt.Sprintf("%d bytes %08x %s", len(b), crc32.ChecksumIEEE(b), said(err))
}

// name is what an id is called: ids may differ, their order may not.
func (w *world) name(id layout.ObjectID) string {
	if id == 0 {
		return "none"
	}
	if n, ok := w.names[id]; ok {
		return n
	}
	return "?"
}

func (w *world) birth(id layout.ObjectID) {
	if _, ok := w.names[id]; ok {
		return // given again
	}
	w.born = append(w.born, id)
	w.names[id] = fmt.Sprintf("%v%d", id.Kind(), len(w.born))
}

// any returns one of the ids that were given.
func (w *world) any(n int, kind layout.Kind) layout.ObjectID {
	var of []layout.ObjectID
	for _, id := range w.born {
		if id.Kind() == kind {
			of = append(of, id)
		}
	}
	if len(of) == 0 {
		return layout.NewObjectID(kind, 1<<30)
	}
	return of[len(of)-1-n%min(len(of), 8)]
}

func (w *world) do(o op) string {
	switch o.do {
	case "reopen", "restart", "grow":
		return w.again(o.do)
	case "objects":
		return w.objects()
	case "roots":
		return w.roots()
	case "set roots":
		return w.setRoots(o)
	case "commit many":
		return w.commitMany(o)
	case "owner":
		index, err := w.pool.AddOwner(w.ctx, fmt.Sprintf("owner%d", o.slot), uint32(o.off%2))
		list, lerr := w.pool.Owners(w.ctx)
		return fmt.Sprint(index, said(err), list, said(lerr))
	case "alloc", "put mblock", "find", "again":
		return w.acquire(o)
	}
	switch {
	case strings.HasPrefix(o.do, "container"):
		return w.container(o)
	case slices.Contains([]string{"log", "log find", "open", "reader", "erase", "log info", "log delete"}, o.do):
		return w.log(o)
	case slices.Contains([]string{"append", "sync", "close", "next", "seek", "rewind", "unreader"}, o.do):
		return w.opened(o)
	}
	return w.block(o)
}

// give puts an mblock into a slot; the handle that was there goes.
func (w *world) give(slot int, m api.Mblock, err error) string {
	if err != nil {
		return said(err)
	}
	w.birth(m.ID())
	if old := w.blocks[slot]; old != nil {
		if err := old.Put(); err != nil {
			return "put: " + said(err)
		}
	}
	w.blocks[slot] = m
	return w.name(m.ID())
}

func (w *world) acquire(o op) string {
	ao := api.AllocOptions{Capacity: int64(o.n), Tag: uint64(o.off)}
	switch o.do {
	case "alloc":
		m, err := w.pool.AllocMblock(w.ctx, ao)
		return w.give(o.slot, m, err)
	case "again":
		m, err := w.pool.ReallocMblock(w.ctx, w.any(o.off, layout.KindMblock), ao)
		return w.give(o.slot, m, err)
	case "put mblock":
		if o.off%3 == 0 {
			ao.Capacity = 0
		}
		m, err := w.pool.PutMblock(w.ctx, ao, w.data(o.n))
		return w.give(o.slot, m, err)
	}
	m, err := w.pool.Mblock(w.ctx, w.any(o.off, layout.KindMblock))
	return w.give(o.slot, m, err)
}

// block does something with a handle on an mblock.
func (w *world) block(o op) string {
	for n := 0; w.blocks[o.slot] == nil; n++ { // another one
		if n == blockSlots {
			return "-"
		}
		o.slot = (o.slot + 1) % blockSlots
	}
	m := w.blocks[o.slot]
	var err error
	switch o.do {
	case "write":
		n, err := m.Write(w.ctx, w.data(o.n))
		return fmt.Sprint(n, said(err))
	case "read":
		b := make([]byte, o.n)
		n, err := m.ReadAtContext(w.ctx, b, int64(o.off))
		return saidOf(b[:n], err)
	case "read all":
		var b bytes.Buffer
		_, err := m.WriteTo(&b)
		return saidOf(b.Bytes(), err)
	case "info":
		info, err := m.Info(w.ctx)
		return w.described(&info) + said(err)
	case "get":
		got, err := m.Get(w.ctx)
		if err != nil {
			return said(err)
		}
		return w.give((o.slot+1)%blockSlots, got.(api.Mblock), nil)
	case "commit":
		return said(m.Commit(w.ctx))
	case "put":
		err = m.Put()
	case "abort":
		err = m.Abort(w.ctx)
	case "delete":
		err = m.Delete(w.ctx)
	default:
		panic("no operation " + o.do)
	}
	if err == nil {
		w.blocks[o.slot] = nil
	}
	return said(err)
}

func (w *world) described(i *api.ObjectInfo) string {
	return fmt.Sprintf("%s %v %v length=%d capacity=%d owner=%d tag=%d generation=%d partner=%s ",
		w.name(i.ID), i.State, i.Class, i.Length, i.Capacity, i.Owner, i.Tag, i.Generation, w.name(i.Partner))
}

func (w *world) objects() string {
	var list []string
	for o, err := range w.pool.Objects(w.ctx, api.Filter{}) {
		if err != nil {
			return said(err)
		}
		list = append(list, w.described(&o))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

func (w *world) roots() string {
	list, err := w.pool.Roots(w.ctx)
	var s strings.Builder
	for _, r := range list {
		fmt.Fprintf(&s, "%s=%s ", r.Name, w.name(r.ID))
	}
	return s.String() + said(err)
}

// someRoots are one or two changes.
func (w *world) someRoots(o op) []api.Root {
	list := []api.Root{{Name: fmt.Sprintf("root%d", o.slot%4)}}
	if o.off%3 > 0 {
		list[0].ID = w.any(o.off, layout.KindMblock)
	}
	if o.n%2 == 0 {
		list = append(list, api.Root{Name: "other", ID: w.any(o.n, layout.KindMlog)})
	}
	return list
}

func (w *world) setRoots(o op) string { return said(w.pool.SetRoots(w.ctx, w.someRoots(o))) }

func (w *world) commitMany(o op) string {
	var objects []api.Object
	for i, m := range w.blocks {
		if o.slot>>i&1 > 0 && m != nil {
			objects = append(objects, m)
		}
	}
	var roots []api.Root
	if o.off%2 == 0 {
		roots = w.someRoots(o)
	}
	return said(w.pool.CommitMany(w.ctx, objects, roots))
}

// again has the pool activated again. Before, what was appended is synced, so that
// nothing of it may be lost; a clean end has nothing open and nothing uncommitted.
func (w *world) again(do string) string {
	for _, a := range w.appenders {
		if a != nil {
			if err := a.Sync(w.ctx); err != nil {
				return "sync: " + said(err)
			}
		}
	}
	for _, c := range w.containers {
		if c != nil {
			if err := c.Sync(w.ctx); err != nil {
				return "sync: " + said(err)
			}
		}
	}
	f := w.restart
	if do != "restart" {
		w.release()
		f = w.reopen
		if do == "grow" {
			f = w.grow
		}
	}
	w.blocks, w.logs, w.appenders, w.readers, w.containers = [blockSlots]api.Mblock{}, [logSlots]api.Mlog{},
		[logSlots]api.Appender{}, [logSlots]api.LogReader{}, [containerSlots]api.MDC{}
	p, err := f()
	if err != nil {
		return err.Error()
	}
	w.pool = p
	return "ok"
}

// release gives up all handles; what is uncommitted goes with its last one.
func (w *world) release() {
	for i := range w.logs {
		if r := w.readers[i]; r != nil {
			_ = r.Close() // its pool may have ended
		}
		if a := w.appenders[i]; a != nil {
			_ = a.Close(w.ctx)
		}
		if l := w.logs[i]; l != nil && l.Abort(w.ctx) != nil {
			_ = l.Put()
		}
	}
	for _, c := range w.containers {
		if c != nil {
			_ = c.Close(w.ctx)
		}
	}
	for _, m := range w.blocks {
		if m != nil && m.Abort(w.ctx) != nil {
			_ = m.Put()
		}
	}
}
