package mpool

import (
	"math"
	"strings"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/sched"
	"github.com/mpool-go/mpool/space"
)

// HoldingKind is something of a pool that owners hold.
type HoldingKind uint8

// What owners hold. The bytes are those of extents: whole zones.
const (
	HoldCapacity HoldingKind = iota // bytes of the class capacity
	HoldStaging                     // bytes of the class staging
	HoldMblocks                     // mblocks
	HoldMlogs                       // mlogs
	NumHoldings
)

var holdingNames = [NumHoldings]string{"mpool.bytes.capacity", "mpool.bytes.staging", "mpool.mblocks", "mpool.mlogs"}

// String returns the name of the resource class, such as "mpool.mblocks".
func (k HoldingKind) String() string {
	if k < NumHoldings {
		return holdingNames[k]
	}
	return "unknown"
}

// Holding is so much of each.
type Holding [NumHoldings]int64

// Unlimited is a limit that refuses nothing.
const Unlimited = -1

// HoldingLimits say how much owners may hold: objects that exist or that are being
// made. An entry that is Unlimited limits nothing.
type HoldingLimits struct {
	Total   Holding            // all owners together
	Default Holding            // each owner that Own does not name
	Own     map[uint32]Holding // by the owner's index
}

// holdings count what owners hold. Every object is a record of it: the sums are made
// from the table at activation, and follow what becomes of objects.
type holdings struct {
	mu sched.Mutex
	// +checklocks:mu
	list []holder // by owner; 0 is the pool, above all others
	// +checklocks:mu
	byDefault Holding
	// +checklocks:mu
	own map[uint32]Holding
}

// holder is one owner, with all below it.
type holder struct {
	parent    uint32
	committed Holding
	reserved  Holding // of uncommitted objects
	limit     Holding
}

func noLimits() (h Holding) {
	for i := range h {
		h[i] = Unlimited
	}
	return h
}

func (h *holdings) init(s *sched.Sched, owners []api.Owner) {
	h.mu.Init(s, sched.RankSpace)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byDefault = noLimits()
	h.list = append(h.list[:0], holder{limit: noLimits()})
	for _, o := range owners {
		h.list = append(h.list, holder{parent: o.Parent, limit: noLimits()})
	}
}

// add adds the next owner.
func (h *holdings) add(o api.Owner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if int(o.Index) != len(h.list) {
		return
	}
	limit, ok := h.own[o.Index]
	if !ok {
		limit = h.byDefault
	}
	h.list = append(h.list, holder{parent: o.Parent, limit: limit})
}

// refusal says which limit refuses.
type refusal struct {
	owner       uint32
	kind        HoldingKind
	used, asked int64
	limit       int64
}

// reserve counts what an uncommitted object will hold, if its owner, and all above it,
// may hold it.
func (h *holdings) reserve(owner uint32, ask Holding) *refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := owner; ; i = h.list[i].parent {
		x := &h.list[i]
		for k, n := range ask {
			used := x.committed[k] + x.reserved[k]
			if limit := x.limit[k]; n > 0 && limit != Unlimited && (n > limit || used > limit-n) {
				return &refusal{owner: i, kind: HoldingKind(k), used: used, asked: n, limit: limit}
			}
		}
		if i == 0 {
			break
		}
	}
	h.addLocked(owner, Holding{}, ask, 1)
	return nil
}

// release is the end of what was reserved.
func (h *holdings) release(owner uint32, of Holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(owner, Holding{}, of, -1)
}

// commit turns what was reserved into what is held, which may be less.
func (h *holdings) commit(owner uint32, reserved, held Holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(owner, Holding{}, reserved, -1)
	h.addLocked(owner, held, Holding{}, 1)
}

// drop is the end of what is held; with sign 1 its beginning.
func (h *holdings) hold(owner uint32, of Holding, sign int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(owner, of, Holding{}, sign)
}

// +checklocks:h.mu
func (h *holdings) addLocked(owner uint32, committed, reserved Holding, sign int64) {
	for i := owner; ; i = h.list[i].parent {
		x := &h.list[i]
		for k := range NumHoldings {
			x.committed[k] += sign * committed[k]
			x.reserved[k] += sign * reserved[k]
		}
		if i == 0 {
			return
		}
	}
}

// holdingOf returns what an object on so many zones of a drive is.
func (d *drive) holdingOf(kind layout.Kind, zones uint32) (h Holding) {
	return holdingOf(api.Class(d.entry.Class), kind, int64(zones)*d.geo.zone)
}

func holdingOf(c api.Class, kind layout.Kind, bytes int64) (h Holding) {
	switch c {
	case api.ClassCapacity:
		h[HoldCapacity] = bytes
	case api.ClassStaging:
		h[HoldStaging] = bytes
	}
	if kind == layout.KindMblock {
		h[HoldMblocks] = 1
	} else {
		h[HoldMlogs] = 1
	}
	return h
}

func (h Holding) times(n int64) Holding {
	for k := range h {
		h[k] *= n
	}
	return h
}

// reserveHolding asks for what n objects of so many blocks will hold, before there is
// space for them: on a drive of the class that is wanted, as it seems.
func (p *Pool) reserveHolding(op string, kind layout.Kind, o api.AllocOptions, blocks uint32, n int) (Holding, error) {
	var on *drive
	for _, d := range p.drives {
		if d.dev == nil || on != nil && (!o.Fallback || api.Class(on.entry.Class) == o.Class) {
			continue
		}
		if c := api.Class(d.entry.Class); c == o.Class || o.Fallback {
			on = d
			if c == o.Class {
				break
			}
		}
	}
	if on == nil {
		return Holding{}, nil // place says why there is none
	}
	ask := on.holdingOf(kind, on.geo.zonesFor(blocks)).times(int64(n))
	return ask, p.refused(op, p.holdings.reserve(o.Owner, ask))
}

// placed reserves what objects will hold where they were placed, instead of what it
// seemed.
func (p *Pool) placed(op string, kind layout.Kind, o api.AllocOptions, asked Holding, d *drive, runs []space.Run) error {
	got := d.holdingOf(kind, runs[0].Count).times(int64(len(runs)))
	if got == asked {
		return nil
	}
	p.holdings.release(o.Owner, asked)
	return p.refused(op, p.holdings.reserve(o.Owner, got))
}

// refused makes the error of a refusal; nil is none.
func (p *Pool) refused(op string, r *refusal) error {
	if r == nil {
		return nil
	}
	whose, owner := "all owners together", ""
	if r.owner != 0 {
		owner = p.names.path(r.owner)
		whose = "owner " + owner
	}
	e := api.Errorf(api.EDQUOT, op, "class %v: %s may hold %d and holds %d; %d more do not fit", r.kind, whose, r.limit, r.used, r.asked)
	e.Want, e.Have = r.asked, max(0, r.limit-r.used)
	e.Refusal = &api.Refusal{Class: r.kind.String(), Owner: owner, Used: r.used, Asked: r.asked, Limit: r.limit}
	return e
}

// path returns an owner's names from the top, parent/child.
func (t *namesTable) path(index uint32) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for i := index; i != 0 && int(i) < len(t.owner); i = t.owner[i].Parent {
		names = append([]string{t.owner[i].Name}, names...)
	}
	return strings.Join(names, "/")
}

// SetHoldingLimits replaces all limits. What is held stays, whatever they say.
func (p *Pool) SetHoldingLimits(l HoldingLimits) {
	h := &p.holdings
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byDefault = l.Default
	h.own = make(map[uint32]Holding, len(l.Own))
	for i := range h.list {
		h.list[i].limit = l.Default
	}
	h.list[0].limit = l.Total
	for i, own := range l.Own { // order does not matter: each its own
		h.own[i] = own
		if i > 0 && int(i) < len(h.list) {
			h.list[i].limit = own
		}
	}
}

// Held returns what an owner and all below it hold, of the owner 0 what there is:
// of committed objects, and of those that are not.
func (p *Pool) Held(owner uint32) (committed, uncommitted Holding) {
	h := &p.holdings
	h.mu.Lock()
	defer h.mu.Unlock()
	if int64(owner) > math.MaxInt32 || int(owner) >= len(h.list) {
		return committed, uncommitted
	}
	return h.list[owner].committed, h.list[owner].reserved
}
