package credits

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

const (
	envStorm   = "MPOOL_CREDITS_STORM" // the plan of a process that goes on until it dies
	stormUsers = 4                     // of each process
)

// way is how a process dies.
type way int

const (
	byKill  way = iota // killed at any moment
	byStop             // stopped, and killed then
	byExit             // ends by itself in the midst of what it does
	byClose            // closes its session first, and begins another
	ways
)

func (w way) String() string { return [...]string{"kill", "stop", "exit", "close"}[w] }

// plan is what a process is to do.
type plan struct {
	Seed  uint64
	Way   way
	Steps int // of each user, before it exits or closes
	IDs   []layout.ObjectID
	Log   layout.ObjectID
}

// storm acquires, holds and gives up credits on objects, opens, deletes and makes them
// anew, in several goroutines, until it dies.
func storm(socket, text string) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	w, err := dialWire(socket, poolName)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	over, err := w.rage(p, p.Seed, p.Way == byExit || p.Way == byClose)
	if !over {
		return err
	}
	if p.Way == byExit {
		os.Exit(0)
	}
	w.end()
	if w, err = dialWire(socket, poolName); err != nil {
		return err
	}
	_, err = w.rage(p, p.Seed+1, false)
	return err
}

// rage has the users do one step after another; over, if it ends with one of them
// having done all that is planned.
func (w *wire) rage(p plan, n uint64, ends bool) (over bool, err error) {
	errs := make(chan error, stormUsers)
	for i := range stormUsers {
		go func() {
			rng := rand.New(rand.NewPCG(n, uint64(i)))
			for k := 0; !ends || k < p.Steps; k++ {
				if err := w.step(rng, &p); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	err = <-errs // the others are in the midst of it
	return err == nil, err
}

// step is one thing that a user does.
func (w *wire) step(rng *rand.Rand, p *plan) error {
	id := p.IDs[rng.IntN(len(p.IDs))]
	switch rng.IntN(12) {
	case 0, 1:
		if h, _, err := w.open(ioctl.OpMblockFind, &ioctl.Find{Pool: w.pool, ID: id}); err == nil && rng.IntN(8) > 0 {
			_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: h}) // it may be fenced
		}
		return nil
	case 2:
		w.delete(id)
		return nil
	case 3:
		w.again(rng, id)
		return nil
	case 4:
		return w.log(rng, p.Log)
	}
	mode := []credit.Modes{credit.Read, credit.Read, credit.Write, credit.Delete}[rng.IntN(4)]
	return w.borrow(rng, id, mode)
}

// borrow acquires a credit, holds it, and gives it up.
func (w *wire) borrow(rng *rand.Rand, id layout.ObjectID, mode credit.Modes) error {
	first := rng.Uint64N(100)
	end := first + 1 + rng.Uint64N(100)
	if mode&(credit.Delete|credit.Append) != 0 {
		first, end = 0, credit.End
	}
	flags := credit.Flags(0)
	if rng.IntN(3) == 0 {
		flags = credit.Try
	}
	soon, cancel := context.WithTimeout(ctx, time.Duration(rng.IntN(20))*time.Millisecond)
	defer cancel()
	h, err := w.acquire(soon, id, mode, first, end, flags)
	switch {
	case err == nil:
	case errors.Is(err, credit.ErrBusy), errors.Is(err, credit.ErrTimeout), errors.Is(err, credit.ErrNotFound):
		return nil // others have it, or it was deleted
	default:
		return err
	}
	if mode == credit.Append {
		w.append(rng, id)
	} else if rng.IntN(3) == 0 {
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // holds it
	}
	if err := h.Release(credit.Version{}); err != nil && !errors.Is(err, credit.ErrStale) {
		return err
	}
	if rng.IntN(4) == 0 {
		w.owner.GiveBack(objectOf(id), credit.Make(credit.Span{First: 0, End: rng.Uint64N(200), Modes: 0xf}))
	}
	return nil
}

// delete deletes an mblock, if it is there and nobody else uses it.
func (w *wire) delete(id layout.ObjectID) {
	h, _, err := w.open(ioctl.OpMblockFind, &ioctl.Find{Pool: w.pool, ID: id})
	if err != nil {
		return
	}
	if _, err := w.ask(ioctl.OpObjectDelete, &ioctl.Target{Handle: h}); err != nil {
		_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: h}) // it may be fenced
	}
}

// again makes an mblock that was deleted anew, or begins to.
func (w *wire) again(rng *rand.Rand, id layout.ObjectID) {
	h, _, err := w.open(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.pool, ID: id, Options: api.AllocOptions{Capacity: 4096}})
	if err != nil || rng.IntN(8) == 0 {
		return // it is there; or it stays as it is
	}
	data := ioctl.InlinePayload([]byte("content"))
	if _, err := w.ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: h, Total: 7, Data: data}); err == nil {
		_, _ = w.ask(ioctl.OpObjectCommit, &ioctl.Target{Handle: h}) // it may be fenced
	}
	_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: h})
}

// log appends to a log, with a credit or without.
func (w *wire) log(rng *rand.Rand, id layout.ObjectID) error {
	if rng.IntN(2) == 0 {
		return w.borrow(rng, id, credit.Append)
	}
	w.append(rng, id)
	return nil
}

func (w *wire) append(rng *rand.Rand, id layout.ObjectID) {
	h, _, err := w.open(ioctl.OpMlogFind, &ioctl.Find{Pool: w.pool, ID: id})
	if err != nil {
		return
	}
	a, _, err := w.open(ioctl.OpMlogOpenAppend, &ioctl.Target{Handle: h})
	if err == nil {
		_, _ = w.ask(ioctl.OpAppend, &ioctl.AppendRecord{To: a, Sync: rng.IntN(4) == 0, Data: ioctl.InlinePayload([]byte("x"))})
		if rng.IntN(8) == 0 {
			return // it dies with both open
		}
		_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: a})
	}
	_, _ = w.ask(ioctl.OpClose, &ioctl.Target{Handle: h})
}
