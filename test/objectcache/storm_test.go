package objectcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

var stormFor = flag.Duration("objectcache.storm", 2*time.Second, "how long connections storm")

// proves G41, G42, G47, G49, G50: goroutines of a few connections, each with two handles
// of the pool, open, read, view, delete and make anew the same mblocks, take credits with
// contexts that end at any moment, and close their connections amid it. The bytes that
// one handle gives are of one making, and of none older than what was committed before
// it was opened; and when all is over nothing is lent to anybody.
func TestStorm(t *testing.T) {
	drive := daemon.Drive(t, 256<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: "[credits]\ncall_back = '200ms'\n"})
	own, setup := d.Pool("data", drive, api.CreateOptions{})
	seed := rand.Uint64()
	t.Log("seed", seed)
	s := &storm{t: t, socket: d.Socket}
	for i := range s.objects {
		s.make(setup, i)
	}
	var all sync.WaitGroup
	// What is rare may not have come by then where processors are busy.
	until, latest := time.Now().Add(*stormFor), time.Now().Add(*stormFor+daemon.Patience)
	goOn := func() bool {
		now := time.Now()
		return now.Before(until) || now.Before(latest) && slices.Contains(counts(&s.did), 0)
	}
	for k := range 3 {
		n := &node{s: s, options: client.CreditOptions{Cached: 2 + k, Bytes: 5 * size / 2}}
		n.dial()
		for g := range 4 {
			r := rand.New(rand.NewPCG(seed, uint64(10*k+g)))
			all.Go(func() {
				for !t.Failed() && goOn() {
					n.act(r)
				}
			})
		}
		s.nodes = append(s.nodes, n)
	}
	all.Wait()
	for _, n := range s.nodes {
		s.stats(n.conn)
		_ = n.conn.Close() // it may have been lost
	}
	t.Logf("done: %v, refused: %v; %+v", counts(&s.did), counts(&s.refused), s.sum)
	if s.sum.Hits == 0 || s.sum.CalledBack == 0 || slices.Contains(counts(&s.did), 0) {
		t.Error("something was never done")
	}
	daemon.Eventually(t, "nothing is lent", func() bool {
		for _, err := range own.EachCredit(t.Context(), "data") {
			return err != nil && t.Failed()
		}
		return true
	})
}

// The kinds of what is done.
const (
	reads = iota
	replaces
	acquires
	gives
	revokes
	redials
	kinds
)

type storm struct {
	t       *testing.T
	socket  string
	nodes   []*node
	objects [objects]struct {
		mu    sync.Mutex // who makes it anew
		id    atomic.Uint64
		least atomic.Uint64 // making that is committed
	}
	last         atomic.Uint64 // making
	did, refused [kinds]atomic.Int64

	mu  sync.Mutex
	sum client.CreditStats
}

func counts(a *[kinds]atomic.Int64) (list []int64) {
	for i := range a {
		list = append(list, a[i].Load())
	}
	return list
}

func (s *storm) stats(c *client.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := c.CreditStats()
	s.sum.Hits, s.sum.CalledBack = s.sum.Hits+x.Hits, s.sum.CalledBack+x.CalledBack
	s.sum.Messages, s.sum.GivenBack = s.sum.Messages+x.Messages, s.sum.GivenBack+x.GivenBack
}

// node is a connection, or the one after it.
type node struct {
	s       *storm
	options client.CreditOptions

	mu    sync.Mutex
	conn  *client.Conn
	pools [2]api.Pool
}

func (n *node) dial() {
	c, err := client.Dial(context.Background(), client.Options{Socket: n.s.socket, Credits: &n.options})
	if err != nil {
		n.s.t.Error(err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conn = c
	for i := range n.pools {
		if n.pools[i], err = c.OpenPool(context.Background(), "data"); err != nil {
			n.s.t.Error(err)
		}
	}
}

func (n *node) pool(i int) api.Pool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pools[i]
}

// may says whether others can be the reason of an error.
func may(err error) bool {
	return slices.Contains([]api.Code{
		api.ENOENT, api.EBUSY, api.ESTALE, api.EBADF, api.ECONNRESET, api.ETIMEDOUT, api.ECANCELED,
	}, api.CodeOf(err))
}

func (n *node) act(r *rand.Rand) {
	s, p, i := n.s, n.pool(r.IntN(2)), r.IntN(objects)
	id := layout.ObjectID(s.objects[i].id.Load())
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
	if r.IntN(3) == 0 {
		ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
	}
	defer cancel()
	kind, err := reads, error(nil)
	switch x := r.IntN(400); {
	case x < 250:
		err = s.read(ctx, p, r, i)
	case x < 300:
		kind, err = replaces, s.replace(p, r, i)
	case x < 370:
		kind = acquires
		m := []client.CreditModes{client.CreditRead, client.CreditRead, client.CreditWrite, client.CreditAppend, client.CreditDelete}[r.IntN(5)]
		var h *client.Hold
		h, err = p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{
			Modes: m, Offset: int64(r.IntN(2) * 4096), Length: int64(r.IntN(2) * 4096), Try: r.IntN(2) == 0,
		})
		if err == nil {
			err = h.Release()
		}
	case x < 396:
		kind = gives
		p.(client.Credits).GiveBackCredit(id)
	case x < 399:
		kind, err = revokes, p.(client.Credits).RevokeCredit(ctx, id)
	case r.IntN(4) == 0:
		kind = redials
		n.mu.Lock()
		c := n.conn
		n.mu.Unlock()
		s.stats(c)
		if err = c.Close(); err == nil {
			n.dial()
		}
	}
	switch {
	case err == nil:
		s.did[kind].Add(1)
	case may(err), kind == replaces && slices.Contains([]api.Code{api.EUNKNOWN, api.EEXIST}, api.CodeOf(err)): // a commit was cut off
		s.refused[kind].Add(1)
	default:
		s.t.Errorf("act %d: %v", kind, err)
	}
}

// read opens an mblock, reads of it and views it, and gives it up.
func (s *storm) read(ctx context.Context, p api.Pool, r *rand.Rand, i int) (err error) {
	o := &s.objects[i]
	least := o.least.Load()
	m, err := p.Mblock(ctx, layout.ObjectID(o.id.Load()))
	if err != nil {
		return err
	}
	var first []byte
	var views []*client.View
	check := func(b []byte) {
		for ; len(b) >= 8; b = b[8:] {
			if first == nil {
				first = bytes.Clone(b[:8])
			}
			if v := binary.LittleEndian.Uint64(b); !bytes.Equal(b[:8], first) || v < least {
				s.t.Errorf("bytes of making %d, beside %x, though %d was committed before", v, first, least)
				return
			}
		}
	}
	defer func() {
		err = errors.Join(err, m.Put())
		for _, v := range views { // they outlive the handle
			check(v.Bytes())
			v.Release()
		}
	}()
	for range 1 + r.IntN(3) {
		off := int64(8 * r.IntN(size/8))
		if x, ok := m.(client.Viewer); ok && r.IntN(3) == 0 {
			v, err := x.View(ctx, off, 8*(1+r.IntN(1000)))
			if err != nil {
				return err
			}
			views = append(views, v)
			check(v.Bytes())
			continue
		}
		b := make([]byte, 8*(1+r.IntN(2000)))
		k, err := m.ReadAtContext(ctx, b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		check(b[:k])
	}
	return nil
}

// replace deletes an mblock and makes another in its place.
func (s *storm) replace(p api.Pool, r *rand.Rand, i int) error {
	o := &s.objects[i]
	if !o.mu.TryLock() {
		return nil
	}
	defer o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	id := layout.ObjectID(o.id.Load())
	if r.IntN(2) == 0 {
		h, err := p.(client.Credits).AcquireCredit(ctx, id, client.CreditRequest{Modes: client.CreditDelete})
		if err != nil && !errors.Is(err, api.ENOENT) {
			return err
		}
		if err == nil {
			defer func() { _ = h.Release() }() // it may have been taken
		}
	}
	m, err := p.Mblock(ctx, id)
	if err == nil {
		if err = m.Delete(ctx); err != nil {
			return errors.Join(err, m.Put())
		}
	} else if !errors.Is(err, api.ENOENT) {
		return err
	}
	return s.make(p, i)
}

// make makes the next making of an mblock; id 0: the first.
func (s *storm) make(p api.Pool, i int) error {
	ctx := context.Background()
	o := &s.objects[i]
	alloc := api.AllocOptions{Capacity: 64 << 10}
	var m api.Mblock
	var err error
	if id := layout.ObjectID(o.id.Load()); id == 0 {
		m, err = p.AllocMblock(ctx, alloc)
	} else {
		m, err = p.ReallocMblock(ctx, id, alloc)
	}
	if err != nil {
		return err
	}
	n := s.last.Add(1)
	data := make([]byte, size)
	for at := 0; at < size; at += 8 {
		binary.LittleEndian.PutUint64(data[at:], n)
	}
	if _, err = m.Write(ctx, data); err == nil {
		err = m.Commit(ctx)
	}
	if err == nil {
		o.least.Store(n)
		o.id.Store(uint64(m.ID()))
	}
	return errors.Join(err, m.Put())
}
