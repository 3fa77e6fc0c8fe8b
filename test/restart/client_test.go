package restart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// roleVariable makes the test's program a client, or another child.
const roleVariable = "MPOOL_RESTART_ROLE"

// role is what a child process is to do.
type role struct {
	Stranger bool   // see inherit_test.go
	Kind     string // "": a worker; see play
	Hold     []string
	Sessions int
	N        int
	Socket   string
	Journal  string
	Log      layout.ObjectID
	Seed     uint64
}

// Kinds of children.
const (
	kindDialer   = "dialer"   // connects, asks and leaves, again and again
	kindHolder   = "holder"   // holds what a daemon that ends has to drain
	kindReturner = "returner" // loses its daemon and looks for the next one
)

// play is a child process's main function.
func play(b string) {
	var r role
	if err := json.Unmarshal([]byte(b), &r); err != nil {
		panic(err)
	}
	switch {
	case r.Stranger:
		stranger()
		return
	case r.Kind == kindDialer:
		dialer(&r)
		return
	case r.Kind == kindHolder:
		holder(&r)
		return
	case r.Kind == kindReturner:
		returner(&r)
		return
	}
	f, err := os.Create(r.Journal)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Options{Socket: r.Socket, Hello: patience, Reconnect: patience})
	if err != nil {
		panic(err)
	}
	p, err := c.OpenPool(ctx, poolName)
	if err != nil {
		panic(err)
	}
	w := &worker{
		role: r, ctx: ctx, p: p, j: &journal{f: f}, rng: rand.New(rand.NewPCG(r.Seed, 2)),
		live: make(map[layout.ObjectID]blob), errors: make(map[string]int),
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what is waited for
		w.stop.Store(true)
	}()
	var wg sync.WaitGroup
	wg.Go(w.blocks)
	wg.Go(w.log)
	wg.Wait()
	w.mu.Lock()
	w.j.say(entry{What: "end", Calls: w.calls, Longest: w.longest, Errors: w.errors})
	w.mu.Unlock()
	if err := errors.Join(p.Close(), c.Close(), f.Close()); err != nil {
		panic(err)
	}
}

// worker is a client at work.
type worker struct {
	role
	ctx  context.Context
	p    api.Pool
	j    *journal
	rng  *rand.Rand // of blocks
	stop atomic.Bool
	live map[layout.ObjectID]blob // of blocks
	gone []layout.ObjectID        // the last ones
	root layout.ObjectID

	mu sync.Mutex
	// +checklocks:mu
	calls int
	// +checklocks:mu
	longest time.Duration
	// +checklocks:mu
	errors map[string]int
}

// bound is how long a call may take through a restart.
const bound = 2 * time.Minute

// call makes a call and checks what it returns: nothing but these codes.
func (w *worker) call(what string, f func() error, allowed ...api.Code) error {
	began := time.Now()
	err := f()
	took := time.Since(began)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.longest = max(w.longest, took)
	if took > bound {
		w.bad("%s took %v", what, took)
	}
	if err != nil {
		code := api.CodeOf(err)
		w.errors[fmt.Sprintf("%s %v", what, code)]++
		if !slices.Contains(allowed, code) {
			w.bad("%s: %v", what, err)
		}
	}
	return err
}

func (w *worker) bad(format string, args ...any) {
	w.j.say(entry{What: "bad", Text: fmt.Sprintf(format, args...)})
}

// think is the pause between two steps: many clients share two processors.
func think(rng *rand.Rand) { time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond) }

// blocks puts, reads, lists and deletes mblocks.
func (w *worker) blocks() {
	for !w.stop.Load() {
		switch n := w.rng.IntN(10); {
		case len(w.live) < 3 || n < 2:
			w.put(1)
		case n < 4:
			w.put(2 + w.rng.IntN(3))
		case n < 6 || len(w.live) > 10:
			w.remove()
		case n < 8:
			w.read()
		case n < 9:
			w.list()
		default:
			w.look()
		}
		think(w.rng)
	}
}

// pick returns an object that is there.
func (w *worker) pick() (layout.ObjectID, blob) {
	ids := slices.Sorted(maps.Keys(w.live))
	id := ids[w.rng.IntN(len(ids))]
	return id, w.live[id]
}

// is says that an object is there, or is not.
func (w *worker) is(id layout.ObjectID, b blob, there bool) {
	if there {
		w.live[id] = b
		w.j.say(entry{What: "live", ID: id, Blob: b})
		return
	}
	delete(w.live, id)
	w.gone = append(w.gone[max(0, len(w.gone)-20):], id)
	w.j.say(entry{What: "gone", ID: id})
}

// there looks whether an object is there. It goes on until it knows.
func (w *worker) there(id layout.ObjectID) bool {
	for {
		err := w.call("look", func() error {
			m, err := w.p.Mblock(w.ctx, id)
			if err == nil {
				err = m.Put()
			}
			return err
		}, api.ENOENT, api.ECONNRESET)
		switch {
		case err == nil:
			return true
		case errors.Is(err, api.ENOENT):
			return false
		}
	}
}

// alloc makes an uncommitted mblock, or returns nil.
func (w *worker) alloc() (m api.Mblock, b blob) {
	b = blob{Seed: w.rng.Uint64(), Size: 1 + w.rng.IntN(90_000)}
	data := b.bytes()
	err := w.call("alloc", func() (err error) {
		m, err = w.p.AllocMblock(w.ctx, api.AllocOptions{Capacity: int64(len(data)), Tag: uint64(w.N) + 1})
		return err
	}, api.ECONNRESET)
	if err != nil {
		return nil, b
	}
	err = w.call("write", func() error { _, err := m.Write(w.ctx, data); return err }, api.ECONNRESET, api.EBADF)
	if err != nil {
		w.mustBeGone(m)
		return nil, b
	}
	return m, b
}

// mustBeGone puts an mblock whose connection broke.
func (w *worker) mustBeGone(m api.Mblock) {
	_ = w.call("put", m.Put)
	if w.there(m.ID()) {
		w.bad("%v is there; its commit was never sent, or known not to be done", m.ID())
	}
	w.is(m.ID(), blob{}, false)
}

// put commits one mblock, or several with a root.
func (w *worker) put(n int) {
	objects := make([]api.Object, 0, n)
	var all []api.Mblock
	var blobs []blob
	for range n {
		m, b := w.alloc()
		if m == nil {
			break
		}
		objects, all, blobs = append(objects, m), append(all, m), append(blobs, b)
	}
	if len(all) < n {
		for _, m := range all {
			w.mustBeGone(m) // with the same connection
		}
		return
	}
	var err error
	if n == 1 {
		err = w.call("commit", func() error { return all[0].Commit(w.ctx) }, api.ECONNRESET, api.EBADF, api.EUNKNOWN)
	} else {
		roots := []api.Root{{Name: w.rootName(), ID: all[0].ID()}}
		err = w.call("commit many", func() error { return w.p.CommitMany(w.ctx, objects, roots) },
			api.ECONNRESET, api.EBADF, api.EUNKNOWN)
	}
	done := err == nil
	switch {
	case errors.Is(err, api.EUNKNOWN):
		done = w.there(all[0].ID())
	case errors.Is(err, api.EBADF):
		// Some may be of the connection that there is now: uncommitted, and to
		// be found by this process.
		for _, m := range all {
			_ = w.call("abort", func() error { return m.Abort(w.ctx) }, api.ECONNRESET, api.EBADF, api.EUNKNOWN)
		}
	}
	for i, m := range all {
		if w.there(m.ID()) != done {
			w.bad("commit of %d said %v; %v, number %d: there is the contrary of %v", n, err, m.ID(), i, done)
		}
		w.is(m.ID(), blobs[i], done)
		_ = w.call("put", m.Put)
	}
	if done && n > 1 {
		w.root = all[0].ID()
		w.j.say(entry{What: "root", Name: w.rootName(), ID: w.root})
	}
	w.checkRoot()
}

func (w *worker) rootName() string { return fmt.Sprintf("of client %d", w.N) }

// checkRoot compares the client's root with what it was told.
func (w *worker) checkRoot() {
	var roots []api.Root
	if w.call("roots", func() (err error) { roots, err = w.p.Roots(w.ctx); return err }, api.ECONNRESET) != nil {
		return
	}
	var have layout.ObjectID
	for _, r := range roots {
		if r.Name == w.rootName() {
			have = r.ID
		}
	}
	if have != w.root {
		w.bad("the root is %v, want %v", have, w.root)
	}
}

// find gives an mblock that is there, or nil.
func (w *worker) find(id layout.ObjectID) (m api.Mblock) {
	err := w.call("find", func() (err error) { m, err = w.p.Mblock(w.ctx, id); return err }, api.ECONNRESET)
	if err != nil {
		return nil
	}
	return m
}

func (w *worker) remove() {
	id, b := w.pick()
	m := w.find(id)
	if m == nil {
		return
	}
	err := w.call("delete", func() error { return m.Delete(w.ctx) }, api.ECONNRESET, api.EBADF, api.EUNKNOWN)
	there := err != nil
	if errors.Is(err, api.EUNKNOWN) {
		there = w.there(id)
	}
	if w.there(id) != there {
		w.bad("delete of %v said %v; there is the contrary of %v", id, err, there)
	}
	w.is(id, b, there)
	if err != nil {
		_ = w.call("put", m.Put)
	}
}

func (w *worker) read() {
	id, b := w.pick()
	m := w.find(id)
	if m == nil {
		return
	}
	data := b.bytes()
	off := w.rng.IntN(len(data))
	p := make([]byte, 1+w.rng.IntN(len(data)-off))
	err := w.call("read", func() error { _, err := m.ReadAtContext(w.ctx, p, int64(off)); return err }, api.ECONNRESET, api.EBADF)
	if err == nil && !bytes.Equal(p, data[off:off+len(p)]) {
		w.bad("%v: %d bytes at %d are not what was written", id, len(p), off)
	}
	_ = w.call("put", m.Put)
}

func (w *worker) list() {
	there := make(map[layout.ObjectID]bool)
	tag := uint64(w.N) + 1
	err := w.call("list", func() error {
		clear(there)
		for info, err := range w.p.Objects(w.ctx, api.Filter{Tag: &tag}) {
			if err != nil {
				return err
			}
			there[info.ID] = true
		}
		return nil
	}, api.ECONNRESET)
	if err != nil {
		return
	}
	for id := range w.live {
		if !there[id] {
			w.bad("%v is not listed", id)
		}
		delete(there, id)
	}
	for id := range there {
		w.bad("%v is listed and should not be there", id)
	}
}

// look looks for what must not be there, and at the pool.
func (w *worker) look() {
	for _, id := range w.gone {
		if w.there(id) {
			w.bad("%v is back", id)
		}
	}
	_ = w.call("pool info", func() error { _, err := w.p.Info(w.ctx); return err }, api.ECONNRESET)
}
