package sim

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	devsim "github.com/mpool-go/mpool/bdev/sim"
	"github.com/mpool-go/mpool/mpool"
)

// refusal is one thing that a pool may be short of.
type refusal struct {
	name string
	code api.Code
	// impose leaves room for so many; lift takes that back.
	impose func(r *play, room int) (lift func())
}

const zoneSize = 64 << 10

// limit leaves owners room for so many more of what they hold.
func limit(k mpool.HoldingKind, unit int64) func(r *play, room int) func() {
	return func(r *play, room int) func() {
		var most mpool.Holding
		for i := range most {
			most[i] = mpool.Unlimited
		}
		free := mpool.HoldingLimits{Total: most, Default: most}
		held, reserved := r.p.Held(0)
		most[k] = held[k] + reserved[k] + int64(room)*unit
		r.p.SetHoldingLimits(mpool.HoldingLimits{Total: most, Default: free.Default})
		return func() { r.p.SetHoldingLimits(free) }
	}
}

// full leaves so many zones of a class.
func full(class api.Class) func(r *play, room int) func() {
	return func(r *play, room int) func() {
		var fill []api.Object
		for {
			l, err := r.p.AllocMlog(ctx, api.AllocOptions{Capacity: zoneSize / 2, Class: class})
			if errors.Is(err, api.ENOSPC) {
				break
			}
			must(err)
			fill = append(fill, l)
		}
		abort := func(list []api.Object) {
			for _, o := range list {
				must(o.Abort(ctx))
			}
		}
		// The last ones: what is left is in one piece.
		room = min(room, len(fill))
		abort(fill[len(fill)-room:])
		fill = fill[:len(fill)-room]
		return func() { abort(fill) }
	}
}

// fullMetadata leaves so many objects room in the metadata.
func fullMetadata(r *play, room int) func() {
	var fill []api.Object
	for _, n := range []int{48, 8, 1} {
		for {
			batch := make([]api.Object, n)
			for i := range batch {
				b, err := r.p.AllocMblock(ctx, api.AllocOptions{Fallback: true, Class: api.ClassStaging})
				must(err)
				batch[i] = b
			}
			err := r.p.CommitMany(ctx, batch, nil)
			if errors.Is(err, api.ENOSPC) {
				for _, o := range batch {
					must(o.Abort(ctx))
				}
				break
			}
			must(err)
			fill = append(fill, batch...)
		}
	}
	remove := func(n int) {
		for _, o := range fill[:n] {
			must(o.Delete(ctx))
		}
		fill = fill[n:]
	}
	remove(min(room, len(fill)))
	return func() { remove(len(fill)) }
}

// refusals are all that the engine is refused, or refuses itself.
var refusals = []refusal{
	{"a limit of mblocks", api.EDQUOT, limit(mpool.HoldMblocks, 1)},
	{"a limit of mlogs", api.EDQUOT, limit(mpool.HoldMlogs, 1)},
	{"a limit of capacity", api.EDQUOT, limit(mpool.HoldCapacity, zoneSize)},
	{"a limit of staging", api.EDQUOT, limit(mpool.HoldStaging, zoneSize)},
	{"full capacity", api.ENOSPC, full(api.ClassCapacity)},
	{"full staging", api.ENOSPC, full(api.ClassStaging)},
	{"full metadata", api.ENOSPC, fullMetadata},
}

// account is what must be as it was after a refusal.
func (r *play) account() string {
	must(r.s.Sleep(ctx, time.Second)) // what was freed is free
	info, err := r.p.Info(ctx)
	must(err)
	held, reserved := r.p.Held(0)
	s := info.Space
	if sum := s.Free + s.Live + s.Uncommitted + s.Draining + s.Spare + s.Overhead + s.Remainder; sum != s.Total {
		must(fmt.Errorf("space does not add up: %+v (S7)", s))
	}
	return fmt.Sprintf("%+v, held %v, reserved %v", s, held, reserved)
}

// refused plays a scenario with room for so many. Each step that is refused says so,
// leaves everything as it was, keeps others from nothing, and is done when there is
// room again.
func (sc *scenario) refused(f refusal, room int) (hit bool, err error) {
	r := sc.play()
	err = inSim(r.s, func() {
		p, err := r.activate("p", api.ActivateOptions{})
		must(err)
		r.p = p
		steps := sc.steps(r)
		lift := f.impose(r, room)
		for i, st := range steps {
			before := r.account()
			err := st.do()
			if err != nil && !hit {
				hit = true
				if api.CodeOf(err) != f.code {
					must(fmt.Errorf("step %d is to be refused with %s, and is with %w", i, f.code.Error(), err))
				}
				if after := r.account(); after != before {
					must(fmt.Errorf("step %d, refused with %w, leaves\n%s; before\n%s", i, err, after, before))
				}
				if f.name != "full metadata" {
					_, err := p.AddOwner(ctx, laterOwner, 0)
					must(err)
				}
				lift()
				lift = func() {}
				err = st.do()
			}
			if err != nil {
				must(fmt.Errorf("step %d, with room: %w", i, err))
			}
		}
		if r.p != nil {
			lift()
			_ = r.p.Abandon(ctx) // what it says is of no step
		}
	})
	if err != nil {
		return hit, err
	}
	return hit, r.likeUndisturbed()
}

var anyID = regexp.MustCompile(`[0-9a-f]{16}`)

// nameless is a state in which ids do not count: what was refused has used some up.
func nameless(state string) string {
	lines := strings.Split(anyID.ReplaceAllString(state, "an id"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// likeUndisturbed wants what the scenario leaves undisturbed.
func (r *play) likeUndisturbed() error {
	disks, _ := r.disks.Survivor(nil, devsim.CutOptions{Mode: devsim.CutNone})
	got, _, err := r.sc.state(disks)
	if err != nil {
		return err
	}
	if want := r.sc.states[len(r.sc.states)-1]; nameless(got) != nameless(want) {
		return fmt.Errorf("found is\n%swant\n%s", got, want)
	}
	return nil
}

// Each call that needs something is refused the first of it, the second and so on:
// limits of owners, space of either class, room in the metadata.
//
// proves S7 S10 S12 S27 G28
func TestEachCallRefused(t *testing.T) {
	var hits atomic.Int64
	var list []trial
	for _, sc := range mustPrepare(t) {
		if !sc.open || sc.ends {
			continue
		}
		for _, f := range refusals {
			list = append(list, trial{sc.name + ", " + f.name, func() (tried int, err error) {
				for room := 0; ; room++ {
					hit, err := sc.refused(f, room)
					if err != nil {
						return room, fmt.Errorf("room for %d: %w", room, err)
					}
					if !hit {
						return room + 1, nil
					}
					hits.Add(1)
				}
			}})
		}
	}
	tryAll(t, list)
	if *allFlag && *caseFlag == "" && hits.Load() < 150 {
		t.Errorf("only %d refusals", hits.Load())
	}
	t.Logf("%d refusals", hits.Load())
}

// The first background steps are not admitted, up to all of them: the calls are done
// all the same, and so is what was put off, later.
//
// proves G8
func TestBackgroundRefusedUnderEachCall(t *testing.T) {
	asked := 0
	for _, sc := range mustPrepare(t) {
		if !sc.open {
			continue
		}
		for _, most := range []int{1, 3} {
			r := sc.play()
			refused := 0
			r.admit = func(context.Context, mpool.Priority) (func(), error) {
				if asked++; refused < most {
					refused++
					return nil, api.Errorf(api.EAGAIN, "test", "not now")
				}
				return func() {}, nil
			}
			if err := errors.Join(r.run(len(sc.states), false, nil), r.err); err != nil {
				t.Errorf("%s, %d refused: %v", sc.name, refused, err)
				continue
			}
			if err := r.likeUndisturbed(); err != nil {
				t.Errorf("%s, %d refused: %v", sc.name, refused, err)
			}
		}
	}
	if asked == 0 {
		t.Errorf("only %d background steps", asked)
	}
}
