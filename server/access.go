package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

// OwnerRule lets the sessions of a user act for an owner of a pool. A session's
// first rule says what the owner 0 means to it in an allocation.
type OwnerRule struct {
	Pool string // its name
	UID  uint32
	// Owner is the owner's name in the pool's owner table; where several have
	// it, its path from the top, "parent/child". An owner that is not there
	// grants nothing until it is.
	Owner string
}

func (o OwnerRule) validate() error {
	switch {
	case o.Pool == "" || len(o.Pool) > api.MaxPoolName:
		return fmt.Errorf("owner rule for user %d: pool name %q: want 1 to %d bytes", o.UID, o.Pool, api.MaxPoolName)
	case o.Owner == "" || len(o.Owner) > 1024:
		return fmt.Errorf("owner rule for user %d of pool %s: owner %q: want 1 to 1024 bytes", o.UID, o.Pool, o.Owner)
	}
	return nil
}

// maxOwnerRules bounds the rules of a daemon.
const maxOwnerRules = 1 << 16

// ownerRules are the rules by pool and user, in the order given. They are never
// written once they are made.
type ownerRules map[string]map[uint32][]string

func newOwnerRules(list []OwnerRule) (ownerRules, error) {
	if len(list) > maxOwnerRules {
		return nil, fmt.Errorf("%d owner rules: at most %d", len(list), maxOwnerRules)
	}
	rules := make(ownerRules)
	for _, o := range list {
		if err := o.validate(); err != nil {
			return nil, err
		}
		if rules[o.Pool] == nil {
			rules[o.Pool] = make(map[uint32][]string)
		}
		names := rules[o.Pool][o.UID]
		if !slices.Contains(names, o.Owner) {
			rules[o.Pool][o.UID] = append(names, o.Owner)
		}
	}
	return rules, nil
}

// SetOwners replaces all owner rules. Sessions and the handles they have stay;
// what they do next goes by the new rules. If there is an error nothing is
// changed.
func (s *Server) SetOwners(list []OwnerRule) error {
	rules, err := newOwnerRules(list)
	if err != nil {
		return err
	}
	s.rules.Store(&rules)
	for _, a := range s.pools.list() {
		a.ownership.forget(true)
		// Looked at now, so that the log tells now what names nothing.
		if _, err := s.owners(context.Background(), a); err != nil {
			s.log.Warn("cannot read the owners of a pool", slog.String("pool", a.title()), slog.Any("error", err))
		}
	}
	return nil
}

// ownership is what is known of a pool's owners and of who acts for them.
type ownership struct {
	mu sync.Mutex
	// +checklocks:mu
	round int // rises when what is known is out of date
	// +checklocks:mu
	view *ownerView // nil: out of date
	// +checklocks:mu
	told map[string]bool // rules that the log has said to name nothing
}

// ownerView is never written once it is made.
type ownerView struct {
	parents []uint32            // by index; each is lower than its child
	byUID   map[uint32][]uint32 // whom a user with rules acts for, in their order
	wanting bool                // a rule names no owner
}

// forget makes the next who asks look again, after a change.
func (o *ownership) forget(newRules bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.round++
	o.view = nil
	if newRules {
		o.told = nil
	}
}

func (o *ownership) get() (view *ownerView, round int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.view, o.round
}

func (o *ownership) put(v *ownerView, round int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if round == o.round {
		o.view = v
	}
}

// first says whether it is asked for the rule for the first time.
func (o *ownership) first(rule string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told[rule] {
		return false
	}
	if o.told == nil {
		o.told = make(map[string]bool)
	}
	o.told[rule] = true
	return true
}

// owners returns who acts for whom in a pool.
func (s *Server) owners(ctx context.Context, a *activePool) (*ownerView, error) {
	view, round := a.ownership.get()
	if view != nil {
		return view, nil
	}
	table, err := a.pool.Owners(ctx)
	if err != nil {
		return nil, err
	}
	view = &ownerView{parents: make([]uint32, len(table)), byUID: make(map[uint32][]uint32)}
	for i, o := range table {
		if int(o.Index) != i || i > 0 && int(o.Parent) >= i {
			return nil, api.Errorf(api.ECORRUPT, "", "entry %d of the owner table is %+v", i, o)
		}
		view.parents[i] = o.Parent
	}
	name := a.title()
	for uid, owners := range (*s.rules.Load())[name] {
		view.byUID[uid] = nil
		for _, owner := range owners {
			index, why := findOwner(table, owner)
			if why == "" {
				view.byUID[uid] = append(view.byUID[uid], index)
				continue
			}
			view.wanting = true
			if a.ownership.first(fmt.Sprint(uid, " ", owner)) {
				s.log.Warn("an owner rule grants nothing", slog.String("pool", name), slog.Uint64("uid", uint64(uid)),
					slog.String("owner", owner), slog.String("because", why))
			}
		}
	}
	a.ownership.put(view, round)
	return view, nil
}

// findOwner returns the owner that has a name, or a path; or why there is none.
func findOwner(table []api.Owner, name string) (index uint32, why string) {
	var found []uint32
	for _, o := range table[1:] {
		if name != o.Name && !strings.HasSuffix(name, "/"+o.Name) {
			continue
		}
		if ownerPath(table, o.Index) == name {
			return o.Index, ""
		}
		if name == o.Name {
			found = append(found, o.Index)
		}
	}
	switch len(found) {
	case 0:
		return 0, "the pool has no such owner"
	case 1:
		return found[0], ""
	}
	return 0, "several owners have the name; say which with a path, parent/child"
}

// ownerPath returns an owner's names from the top.
func ownerPath(table []api.Owner, index uint32) string {
	path := table[index].Name
	for i := table[index].Parent; i != 0; i = table[i].Parent {
		path = table[i].Name + "/" + path
	}
	return path
}

// access is what a session may do to a pool's objects.
type access struct {
	everything bool     // the pool is shared, or it is an administrator's or the pool's own user's
	names      bool     // it may name any owner
	ruled      bool     // rules say whom it acts for, else it acts for the pool's own owner, 0
	own        []uint32 // whom it acts for by them
	view       *ownerView
	uid        uint32
}

// access returns what the session may do now.
func (r *request) access(a *activePool) (access, error) {
	view, err := r.s.srv.owners(r.ctx, a)
	if err != nil {
		return access{}, err
	}
	uid, _, _ := a.pool.Access()
	x := access{names: r.s.peer.admin || r.s.peer.uid == uid, view: view, uid: r.s.peer.uid}
	x.everything = x.names || a.pool.Shared()
	x.own, x.ruled = view.byUID[x.uid]
	return x, nil
}

// may says whether an owner's objects may be used: those of whom it acts for
// and of all below them; without rules, the pool's own. Of an owner that the
// view does not know nothing may be used.
func (x *access) may(owner uint32) bool {
	if x.everything || !x.ruled {
		return x.everything || owner == 0
	}
	for int(owner) < len(x.view.parents) {
		if slices.Contains(x.own, owner) {
			return true
		}
		if owner == 0 {
			break
		}
		owner = x.view.parents[owner]
	}
	return false
}

// owner returns the owner that an allocation is for.
func (x *access) owner(named uint32) (uint32, error) {
	switch {
	case named == 0 && len(x.own) > 0:
		return x.own[0], nil
	case named == 0 && !x.ruled, x.names, slices.Contains(x.own, named):
		return named, nil
	case named == 0:
		return 0, api.Errorf(api.EPERM, "", "the daemon's rules have user %d act for an owner that the pool does not have", x.uid)
	}
	return 0, api.Errorf(api.EPERM, "", "user %d may not allocate for owner %d: no rule of the daemon's says so", x.uid, named)
}

func noObject(id layout.ObjectID) error {
	return &api.Error{Code: api.ENOENT, Object: id, Detail: "no such object"}
}

// mustReach says ENOENT of an object that is not for the session, as of one
// that is not there.
func (r *request) mustReach(a *activePool, ids ...layout.ObjectID) error {
	x, err := r.access(a)
	if err != nil || x.names {
		return err
	}
	if slices.ContainsFunc(ids, a.system) {
		return noObject(ids[slices.IndexFunc(ids, a.system)])
	}
	if x.everything {
		return nil
	}
	for _, id := range ids {
		info, err := a.pool.Describe(r.ctx, id)
		if errors.Is(err, api.ENOENT) {
			return noObject(id)
		}
		if err == nil {
			err = r.mayReach(a, &x, &info)
		}
		if err != nil {
			return err // not ENOENT: that says that the object is not there
		}
	}
	return nil
}

// mustReachInfo is mustReach for an object that is described already.
func (r *request) mustReachInfo(a *activePool, info *api.ObjectInfo) error {
	x, err := r.access(a)
	if err != nil {
		return err
	}
	return r.mayReach(a, &x, info)
}

// mayReach is mustReachInfo with what is known of the session's access, which
// it looks at again for an owner that may have come just now.
func (r *request) mayReach(a *activePool, x *access, info *api.ObjectInfo) error {
	if int(info.Owner) >= len(x.view.parents) {
		a.ownership.forget(false)
		again, err := r.access(a)
		if err != nil {
			return err
		}
		*x = again
	}
	if !x.may(info.Owner) || !x.names && a.system(info.ID) {
		return noObject(info.ID)
	}
	return nil
}
