package credit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mpool-go/mpool/credit"
)

// scene is a root, two owners below it, and one below the first of these.
type scene struct {
	*tree
	t                    *testing.T
	root, mid, side, low *credit.Owner
}

// scenarios runs each in a scene of its own, winds it up, and looks whether
// anything is left in the root's book.
func scenarios(t *testing.T, list map[string]func(*scene)) {
	t.Helper()
	for name, run := range list {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scene{tree: newTree(t), t: t}
				s.root = s.open(nil, credit.Options{Config: credit.Config{CallBack: credit.DefaultCallBack, Capital: rings}})
				s.mid, s.side = s.open(s.root, credit.Options{}), s.open(s.root, credit.Options{})
				s.low = s.open(s.mid, credit.Options{})
				run(s)
				for _, o := range []*credit.Owner{s.low, s.mid, s.side} {
					if err := o.Close(t.Context()); err != nil {
						t.Error(err)
					}
				}
				synctest.Wait()
				if resources, debtors := s.root.Size(); resources+debtors > 0 {
					t.Errorf("%d resources, %d debtors are left", resources, debtors)
				}
				s.close()
			})
		})
	}
}

// rings is what there is: all of an object, twenty positions of space.
func rings(r credit.Resource) credit.Credit {
	if r.Type == credit.Space {
		return credit.Make(credit.Span{First: 0, End: 20 << 30, Modes: 1})
	}
	return r.Type.All()
}

// ring is one exclusive position, or several.
func ring(first, end uint64, f credit.Flags) credit.Request {
	return access(credit.Write, first, end, f)
}

// anyRing is any so many of them.
func anyRing(n uint64, f credit.Flags) credit.Request {
	return credit.Request{Resource: credit.Resource{Type: credit.Space, ID: 3}, Amount: n << 30, Flags: f}
}

func (s *scene) use(o *credit.Owner, r credit.Request) { release(s.t, acquire(s.t, o, r)) }

// proves G40, G41, G46: the scenarios of one owner.
func TestScenariosLocal(t *testing.T) {
	scenarios(t, map[string]func(*scene){
		"cached": func(s *scene) {
			s.use(s.mid, ring(0, 1, anyhow))
			s.use(s.mid, ring(0, 1, 0))
		},
		"two disjoint cached": func(s *scene) {
			s.use(s.mid, ring(0, 1, anyhow))
			s.use(s.mid, ring(4, 5, anyhow))
			both := credit.Request{
				Resource: object,
				Credit:   credit.Make(credit.Span{First: 0, End: 1, Modes: credit.Write}, credit.Span{First: 4, End: 5, Modes: credit.Write}),
			}
			s.use(s.mid, both)
		},
		"held, wait": func(s *scene) {
			h := acquire(s.t, s.root, ring(0, 1, 0))
			c := waits(s.t, s.root, ring(0, 1, 0))
			release(s.t, h)
			release(s.t, granted(s.t, c))
		},
		"held, try": func(s *scene) {
			h := acquire(s.t, s.root, ring(0, 1, 0))
			refused(s.t, s.root, ring(0, 1, credit.Try), credit.ErrBusy)
			release(s.t, h)
		},
		"held, no conflict": func(s *scene) {
			h := acquire(s.t, s.root, anyRing(1, 0))
			other := acquire(s.t, s.root, anyRing(1, 0))
			if !h.Credit().Meet(other.Credit()).Empty() {
				s.t.Error("one ring to two")
			}
			release(s.t, h)
			release(s.t, other)
		},
		"unknown": func(s *scene) { refused(s.t, s.root, anyRing(21, anyhow), credit.ErrNotFound) },
		"not active": func(s *scene) {
			if err := s.low.Close(s.t.Context()); err != nil {
				s.t.Error(err)
			}
			refused(s.t, s.low, ring(0, 1, anyhow), credit.ErrClosed)
		},
		"waited for": func(s *scene) { // what nobody holds, but somebody waits for
			h := acquire(s.t, s.root, ring(0, 1, 0))
			first := waits(s.t, s.root, ring(0, 5, 0))
			second := waits(s.t, s.root, ring(4, 5, 0))
			refused(s.t, s.root, ring(4, 5, credit.Try), credit.ErrBusy)
			release(s.t, h)
			release(s.t, granted(s.t, first)) // in order
			release(s.t, granted(s.t, second))
		},
	})
}

// proves G40, G42, G45: the scenarios of several owners. Of what is called back
// only what conflicts goes; who shares is not asked.
func TestScenariosRemote(t *testing.T) {
	scenarios(t, map[string]func(*scene){
		"no-borrow-flag": func(s *scene) { refused(s.t, s.low, ring(0, 1, credit.MayRevoke), credit.ErrRemote) },
		"simple-borrow": func(s *scene) {
			s.use(s.mid, ring(0, 1, credit.MayBorrow))
			refused(s.t, s.root, ring(0, 1, 0), credit.ErrRemote)
			s.use(s.root, ring(1, 2, 0))
		},
		"two-borrows-single-req": func(s *scene) {
			s.use(s.mid, ring(0, 1, credit.MayBorrow))
			s.use(s.low, ring(0, 2, credit.MayBorrow))
		},
		"borrow-revoke-single-req": func(s *scene) {
			s.use(s.low, ring(0, 1, anyhow))
			s.use(s.mid, ring(0, 2, anyhow))
			refused(s.t, s.low, ring(0, 1, 0), credit.ErrRemote)
		},
		"revoke-with-hop": func(s *scene) {
			s.use(s.low, ring(0, 2, anyhow))
			s.use(s.root, ring(0, 1, anyhow))
			refused(s.t, s.low, ring(0, 1, 0), credit.ErrRemote)
			s.use(s.low, ring(1, 2, 0))
		},
		"revoke-conflicting-wait": func(s *scene) {
			h := acquire(s.t, s.low, ring(0, 1, anyhow))
			c := waits(s.t, s.side, ring(0, 1, anyhow))
			if !isClosed(h.Wanted()) {
				s.t.Error("not called back")
			}
			release(s.t, h)
			release(s.t, granted(s.t, c))
		},
		"revoke-conflicting-try": func(s *scene) {
			h := acquire(s.t, s.low, ring(0, 1, anyhow))
			refused(s.t, s.side, ring(0, 1, anyhow|credit.Try), credit.ErrBusy)
			if isClosed(h.Wanted()) {
				s.t.Error("called back for who only tries")
			}
			release(s.t, h)
			s.use(s.low, ring(0, 1, 0)) // nothing moved
		},
		"borrow-non-conflicting": func(s *scene) {
			h := acquire(s.t, s.low, access(credit.Read, 0, 1, anyhow))
			s.use(s.side, access(credit.Read, 0, 1, credit.MayBorrow))
			release(s.t, h)
		},
		"revoke-no-conflict": func(s *scene) {
			h := acquire(s.t, s.low, ring(0, 1, anyhow))
			s.use(s.side, ring(1, 2, anyhow))
			s.use(s.side, ring(2, 3, anyhow|credit.Try))
			release(s.t, h)
			s.use(s.low, ring(0, 1, 0))
		},
		"borrow-held-no-conflict": func(s *scene) { // any ring: not the one that is held
			h := acquire(s.t, s.side, anyRing(19, anyhow))
			other := acquire(s.t, s.low, anyRing(1, anyhow))
			if !h.Credit().Meet(other.Credit()).Empty() {
				s.t.Error("one ring to two")
			}
			release(s.t, h)
			release(s.t, other)
		},
		"borrow-held-conflicting": func(s *scene) {
			h := acquire(s.t, s.root, ring(0, 1, 0))
			c := waits(s.t, s.low, ring(0, 1, credit.MayBorrow))
			if !isClosed(h.Wanted()) {
				s.t.Error("the root's user was not called back")
			}
			release(s.t, h)
			release(s.t, granted(s.t, c))
		},
		"group": func(s *scene) {
			group := credit.Options{Config: credit.Config{Group: 9}}
			a, b := s.open(s.root, group), s.open(s.root, group)
			s.use(s.side, ring(0, 1, anyhow))
			x, y := acquire(s.t, a, ring(0, 1, anyhow)), acquire(s.t, b, ring(0, 1, anyhow))
			release(s.t, x)
			release(s.t, y)
			s.use(s.side, ring(0, 1, anyhow)) // one call-back for both
			for _, o := range []*credit.Owner{a, b} {
				if err := o.Close(s.t.Context()); err != nil {
					s.t.Error(err)
				}
			}
		},
	})
}

// proves G46: barriers are by order of arrival at the creditor, near and far; the
// same for who would have come first by a wall clock.
func TestScenariosOrder(t *testing.T) {
	scenarios(t, map[string]func(*scene){
		"barrier": func(s *scene) { // what was gathered is lent to nobody else meanwhile
			x, y := acquire(s.t, s.mid, ring(0, 1, anyhow)), acquire(s.t, s.side, ring(1, 2, anyhow))
			all := waits(s.t, s.root, ring(0, 2, anyhow))
			release(s.t, x)
			again := waits(s.t, s.mid, ring(0, 1, anyhow))
			release(s.t, y)
			release(s.t, granted(s.t, all))
			release(s.t, granted(s.t, again))
		},
		"barrier-overcome-star":  func(s *scene) { inOrder(s, s.mid, s.side, s.root) },
		"barrier-overcome-chain": func(s *scene) { inOrder(s, s.low, s.side, s.mid) },
		"starvation": func(s *scene) {
			x, y := acquire(s.t, s.mid, ring(0, 1, anyhow)), acquire(s.t, s.side, ring(1, 2, anyhow))
			all := waits(s.t, s.root, ring(0, 2, anyhow))
			for range 10 { // each lets go of its own and wants it again at once
				release(s.t, x)
				cx := waits(s.t, s.mid, ring(0, 1, anyhow))
				release(s.t, y)
				release(s.t, granted(s.t, all))
				x = granted(s.t, cx)
				y = acquire(s.t, s.side, ring(1, 2, anyhow))
				all = waits(s.t, s.root, ring(0, 2, anyhow))
			}
			release(s.t, x)
			release(s.t, y)
			release(s.t, granted(s.t, all))
		},
	})
}

// inOrder has three want the same, and be served as they came.
func inOrder(s *scene, owners ...*credit.Owner) {
	h := acquire(s.t, s.root, ring(0, 9, anyhow))
	var queue []<-chan *credit.Hold
	for i, o := range owners {
		queue = append(queue, waits(s.t, o, ring(uint64(i), 9, anyhow)))
	}
	release(s.t, h)
	for i, c := range queue {
		h := granted(s.t, c)
		for _, later := range queue[i+1:] {
			select {
			case <-later:
				s.t.Fatal("out of turn")
			default:
			}
		}
		release(s.t, h)
	}
}

// proves G47: the scenarios of deaths.
func TestScenariosDeath(t *testing.T) {
	scenarios(t, map[string]func(*scene){
		"debtor-death": func(s *scene) {
			acquire(s.t, s.side, ring(0, 1, anyhow))
			s.side.Abandon()
			synctest.Wait()
			s.use(s.root, ring(0, 1, 0))
		},
		"creditor-death": func(s *scene) {
			s.use(s.low, ring(0, 1, anyhow))
			s.mid.Abandon()
			synctest.Wait()
			refused(s.t, s.low, ring(0, 1, 0), credit.ErrRemote) // it is not cached any more
			refused(s.t, s.low, ring(0, 1, anyhow), credit.ErrNoCreditor)
		},
		"creditor-death2": func(s *scene) { // of who holds something
			h := acquire(s.t, s.low, ring(0, 1, anyhow))
			s.mid.Abandon()
			if !isClosed(h.Lost()) || h.Valid() || s.check(h) == nil {
				s.t.Error("it was not told")
			}
		},
		"creditor-recovered": func(s *scene) {
			s.root.Abandon()
			synctest.Wait()
			refused(s.t, s.side, ring(0, 1, anyhow), credit.ErrNoCreditor)
			s.root = s.open(nil, credit.Options{Config: credit.Config{FirstToken: 1 << 40}})
			reconnect(s, s.side, s.root)
			s.use(s.side, ring(0, 1, anyhow))
		},
		"creditor-reset": func(s *scene) { // another one
			s.mid.Abandon()
			synctest.Wait()
			reconnect(s, s.low, s.side)
			s.use(s.low, ring(0, 1, anyhow))
		},
	})
}

func reconnect(s *scene, o, creditor *credit.Owner) {
	s.t.Helper()
	if err := o.Reconnect(credit.NewLocal(creditor)); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// proves G46, G49: the scenarios of a lock for readers and writers.
func TestScenariosRWLock(t *testing.T) {
	read := access(credit.Read, 0, credit.End, anyhow)
	write := access(credit.Read|credit.Write, 0, credit.End, anyhow)
	scenarios(t, map[string]func(*scene){
		"read idle":  func(s *scene) { s.use(s.low, read) },
		"write idle": func(s *scene) { s.use(s.low, write) },
		"read while read": func(s *scene) {
			x, y, z := acquire(s.t, s.low, read), acquire(s.t, s.side, read), acquire(s.t, s.root, read)
			for _, h := range []*credit.Hold{x, y, z} {
				release(s.t, h)
			}
			s.use(s.root, write) // each has given back
		},
		"read while write":           func(s *scene) { after(s, s.side, write, s.low, read) },
		"write while read, local":    func(s *scene) { after(s, s.root, read, s.root, write) },
		"write while read, remote":   func(s *scene) { after(s, s.low, read, s.root, write) },
		"write while write":          func(s *scene) { after(s, s.low, write, s.side, write) },
		"cached at the creditor":     func(s *scene) { s.use(s.low, write); s.use(s.low, access(credit.Write, 5, 6, 0)) },
		"wind-up gives all back":     func(s *scene) { s.use(s.low, read); s.use(s.side, read) },
		"creditor winds up, cached":  func(s *scene) { s.use(s.low, write); s.windUp(s.mid) },
		"creditor winds up, is held": func(s *scene) { h := acquire(s.t, s.low, write); s.windUp(s.mid); release(s.t, h) },
		"writer-starvation": func(s *scene) {
			h := acquire(s.t, s.low, read)
			w, r := waits(s.t, s.side, write), waits(s.t, s.root, read)
			release(s.t, h)
			x := granted(s.t, w)
			select {
			case <-r:
				s.t.Error("a reader beside the writer")
			default:
			}
			release(s.t, x)
			release(s.t, granted(s.t, r))
		},
	})
}

// after has b get what it wants when a lets go of what conflicts, and not before.
func after(s *scene, a *credit.Owner, has credit.Request, b *credit.Owner, want credit.Request) {
	h := acquire(s.t, a, has)
	c := waits(s.t, b, want)
	release(s.t, h)
	release(s.t, granted(s.t, c))
}

// windUp has o begin to give everything back.
func (s *scene) windUp(o *credit.Owner) {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	go func() {
		defer stop()
		_ = o.Close(ctx)
	}()
	synctest.Wait()
}
