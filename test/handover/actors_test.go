package handover

import (
	"bufio"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mpool-go/mpool/api"
)

// offer is an object that a giver has granted.
type offer struct {
	tag uint64
	b   api.Mblock
}

// most is how many objects a giver offers, or a taker keeps, at one time.
const most = 12

// give offers objects, and now and then commits, aborts, revokes or grants one
// again, until it is told to end: then all that are its own still must be so.
func (a *actor) give() {
	var offers []offer
	base := a.rng.Uint64() &^ 0xffffff
	for n := uint64(1); !a.over.Load(); n++ {
		o := offer{tag: base | n}
		b, err := a.p.AllocMblock(a.ctx, api.AllocOptions{Capacity: 16384, Tag: o.tag})
		check(err)
		_, err = b.Write(a.ctx, part(o.tag, 0))
		check(err)
		o.b = b
		offers = append(offers, o)
		a.grant(o)
		if len(offers) == most {
			a.settle(offers[0])
			offers = offers[1:]
		}
	}
	for _, o := range offers {
		if err := o.b.Revoke(a.ctx); err == nil {
			_, err = o.b.Info(a.ctx)
			check(err)
			a.tell("K", o.tag)
			check(o.b.Abort(a.ctx))
		} else {
			a.lost(o.tag, err)
		}
	}
}

func (a *actor) grant(o offer) {
	ttl := time.Minute
	if a.rng.IntN(8) == 0 {
		ttl = time.Millisecond
	}
	token, err := o.b.Grant(a.ctx, ttl)
	if err != nil {
		a.lost(o.tag, err)
		return
	}
	a.tell("g", o.tag)
	_, _ = fmt.Fprintf(a.tokens, "%x %v\n", o.tag, token) // the taker may be dead
	switch a.rng.IntN(10) {
	case 0:
		if err := o.b.Revoke(a.ctx); err != nil {
			a.lost(o.tag, err)
		}
	case 1:
		a.grant(o)
	}
}

// lost says that an object is not the giver's any more, as its handle must say.
func (a *actor) lost(tag uint64, err error) {
	if !errors.Is(err, api.EBADF) {
		a.blame(tag, "the giver's: %v", err)
	}
	a.tell("L", tag)
}

// settle ends the offer of an object.
func (a *actor) settle(o offer) {
	if a.rng.IntN(2) == 0 {
		a.commit(o.tag, o.b, true)
		return
	}
	if err := o.b.Abort(a.ctx); err != nil {
		a.lost(o.tag, err)
		return
	}
	a.tell("K", o.tag)
}

func (a *actor) commit(tag uint64, b api.Mblock, offered bool) {
	a.tell("c", tag)
	switch err := b.Commit(a.ctx); {
	case err == nil:
		a.tell("C", tag)
		check(b.Put())
	case offered:
		a.lost(tag, err)
	default:
		a.blame(tag, "the taker's commit: %v", err)
	}
}

// take accepts what is offered, each by one or two goroutines at the same time, and
// completes it. In the end what it has must be its own still.
func (a *actor) take() {
	type line struct{ tag, token string }
	lines := make(chan line)
	go func() {
		for in := bufio.NewScanner(a.tokens); in.Scan(); {
			var l line
			_, err := fmt.Sscan(in.Text(), &l.tag, &l.token)
			check(err)
			lines <- l
			if l.token[0] < '4' { // a quarter of them
				lines <- l
			}
		}
		close(lines)
	}()
	var held keeper
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for l := range lines {
				var tag uint64
				_, err := fmt.Sscanf(l.tag, "%x", &tag)
				check(err)
				token, err := api.ParseToken(l.token)
				check(err)
				if !a.over.Load() { // else the giver's lines are read, so that it can end
					a.accept(&held, tag, token)
				}
			}
		})
	}
	wg.Wait()
	for !a.over.Load() { // the giver has ended before
		time.Sleep(time.Millisecond)
	}
	for _, o := range held.list {
		a.drop(o)
	}
}

// keeper has what a taker keeps.
type keeper struct {
	mu   sync.Mutex
	list []offer
}

// keep returns the oldest if there are too many.
func (k *keeper) keep(o offer) (old offer, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, o)
	if len(k.list) < most {
		return offer{}, false
	}
	old, k.list = k.list[0], k.list[1:]
	return old, true
}

func (a *actor) accept(held *keeper, tag uint64, token api.Token) {
	a.tell("t", tag)
	got, err := a.p.Accept(a.ctx, token)
	if errors.Is(err, api.ENOENT) || errors.Is(err, api.EBUSY) {
		return
	}
	if err != nil {
		a.blame(tag, "accept: %v", err)
		return
	}
	a.tell("T", tag)
	b, ok := got.(api.Mblock)
	if !ok {
		a.blame(tag, "an mblock is taken over as %T", got)
		return
	}
	info, err := b.Info(a.ctx)
	if err != nil || info.Tag != tag || info.Refs != 1 || info.Length != 4096 || info.State != api.StateUncommitted {
		a.blame(tag, "taken over as %+v, %v", info, err)
	}
	if _, err := b.Write(a.ctx, part(tag, 1)); err != nil {
		a.blame(tag, "write: %v", err)
	}
	if token[15]%2 == 0 {
		a.commit(tag, b, false)
	} else if old, ok := held.keep(offer{tag, b}); ok {
		a.drop(old)
	}
}

// drop aborts what must be the taker's.
func (a *actor) drop(o offer) {
	if err := o.b.Abort(a.ctx); err != nil {
		a.blame(o.tag, "the taker's: %v", err)
	}
}
