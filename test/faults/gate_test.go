package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/layout"
)

var gates = flag.Int("faults.gates", 1, "how many failed flushes of each kind are followed by another activation")

// A flush fails, and what it would have made durable is lost, kept, or to be seen until
// the power goes. The daemon is killed and the pool activated again without a power cut,
// and used; then the power goes. What was acknowledged before the failed flush is
// there, whole, or its loss is found (ECORRUPT); what was refused is not; and nothing
// is ever other bytes.
//
// proves S14 S23 S40
func TestFailedFlushThenActivatedAgain(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"commit", "append", "root"} {
		for i := range *gates {
			t.Run(fmt.Sprint(kind, i), func(t *testing.T) {
				t.Parallel()
				passGate(t, kind, (i+len(kind))%2 == 1)
			})
		}
	}
}

func passGate(t *testing.T, kind string, loop bool) {
	r := newRig(t, spec{name: "a", capacity: 1, loop: loop})
	p := r.pools[0]
	keep, err := p.book.put(r.ctx, p, 300_000, api.AllocOptions{})
	r.ok(err)
	l, a, err := p.book.log(r.ctx, p, api.AllocOptions{})
	r.ok(err)
	for range 3 {
		r.ok(p.book.append(r.ctx, l.ID(), a))
	}
	disk := p.drives[0].Disk()
	fail := func(do func() error, codes ...api.Code) {
		disk.Inject(sim.Fault{Code: bdev.OpFlush, Err: syscall.EIO, Count: 1})
		r.want(do(), codes...)
		disk.Heal()
	}
	switch kind {
	case "commit":
		data := p.book.content(100_000)
		m, err := write(r.ctx, p, data, api.AllocOptions{})
		r.ok(err)
		fail(func() error { return p.book.commit(r.ctx, m, data) }, api.EIO)
	case "append":
		fail(func() error { return p.book.append(r.ctx, l.ID(), a) }, api.EUNKNOWN)
	case "root":
		fail(func() error { return p.SetRoots(r.ctx, []api.Root{{Name: "x", ID: keep.ID()}}) }, api.EUNKNOWN)
	}
	acked := p.book.copy()

	r.ok(r.conn.Close())
	r.daemon.kill()
	if r.activated(p) {
		p.book.verify(r, p)
		for range 3 { // what is acknowledged now may rest on what is lost
			_, err := p.book.put(r.ctx, p, 50_000, api.AllocOptions{})
			r.ok(err)
		}
		if l, err = p.Mlog(r.ctx, l.ID()); err == nil {
			a, err = l.OpenAppend(r.ctx)
		}
		r.ok(err)
		r.ok(p.book.append(r.ctx, l.ID(), a))
	}
	r.ok(r.conn.Close())
	r.daemon.kill()
	t.Logf("%v", p.drives[0].PowerCut(t, r.rng, sim.CutOptions{}))
	if r.activated(p) {
		lost := acked.lost(r, p)
		for id := range p.book.live {
			switch err := p.book.has(r.ctx, p, id); {
			case errors.Is(err, api.ENOENT), errors.Is(err, api.ECORRUPT):
				lost++
			case err != nil:
				t.Errorf("%v: %v", id, err)
			}
		}
		t.Logf("%d objects are lost", lost)
	}
}

// activated starts the daemon and activates the pool. If that is refused, it is because
// something that was durable is gone.
func (r *rig) activated(p *pool) bool {
	r.t.Helper()
	r.start(false)
	_, err := r.conn.ActivatePool(r.ctx, p.name, p.paths, api.ActivateOptions{})
	if errors.Is(err, api.ECORRUPT) {
		r.t.Logf("the activation: %v", err)
		return false
	}
	r.ok(err)
	p.Pool, err = r.conn.OpenPool(r.ctx, p.name)
	r.ok(err)
	return true
}

// copy is the book as it is now.
func (b *book) copy() *book {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &book{live: maps.Clone(b.live), logs: make(map[layout.ObjectID]*logBook)}
	for id, l := range b.logs {
		c.logs[id] = &logBook{slices.Clone(l.sent), l.acked}
	}
	return c
}

// lost fails the test unless what was acknowledged is there or its loss is found, and
// returns how many objects are lost.
func (b *book) lost(r *rig, p *pool) (lost int) {
	r.t.Helper()
	for id := range b.live {
		switch err := b.has(r.ctx, p, id); {
		case errors.Is(err, api.ECORRUPT):
			lost++
		case err != nil:
			r.t.Errorf("%v, acknowledged before the flush failed: %v", id, err)
		}
	}
	for id, l := range b.logs {
		switch n, err := l.count(r.ctx, p, id); {
		case errors.Is(err, api.ECORRUPT):
			lost++
		case err != nil || n < l.acked:
			r.t.Errorf("log %v has %d records; %d were acknowledged before the flush failed: %v", id, n, l.acked, err)
		}
	}
	return lost
}

// count says how many records of a log there are. What follows the acknowledged ones is
// not looked at: a record of unknown outcome that is gone is followed by others.
func (l *logBook) count(ctx context.Context, p *pool, id layout.ObjectID) (n int, err error) {
	log, err := p.Mlog(ctx, id)
	if err != nil {
		return 0, err
	}
	reader, err := log.OpenRead(ctx)
	if err != nil {
		return 0, errors.Join(err, log.Put())
	}
	for buf := make([]byte, 4096); err == nil; n++ {
		var k int
		k, err = reader.Next(ctx, buf)
		if err == nil && n < l.acked && string(buf[:k]) != string(l.sent[n]) {
			return n, fmt.Errorf("record %d is not what was appended", n)
		}
	}
	if err = errors.Join(err, reader.Close(), log.Put()); errors.Is(err, api.ECORRUPT) {
		return n - 1, err
	}
	return n - 1, nil
}
