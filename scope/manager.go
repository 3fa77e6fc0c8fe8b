package scope

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The names of the scopes that are always there.
const (
	SystemName    = "system"
	TransientName = "transient"
)

// Options are what a manager is made of. The zero value has no limits.
type Options struct {
	// Machine is what shares are of; its zero value: [ThisMachine].
	Machine Machine
	// Layers give the limits, by the names of the layers. See Order.
	Layers map[string]Layer
	// Order has the names of the layers, each before those that decide over it; empty:
	// "default", "file", "set". The last is that of [Manager.Set].
	Order []string
	// Setting says what is to be changed for another limit; nil: a scope and a kind
	// with a dot between them.
	Setting func(scope string, k Kind) string
	// Refused is told of refusals: of each scope and kind at most once in an Interval,
	// and at most 20 in all. more are those that were not told before it. It is called
	// by whoever is refused, by several at once too, and is to be quick. May be nil.
	Refused func(e *LimitError, more uint64)
	// Interval between refusals that are told; 0: 10 s.
	Interval time.Duration
	// Waiting is how many tasks may wait to begin, of all scopes together; 0:
	// DefaultWaiting.
	Waiting int
	// Passed is how many tasks of higher priorities may begin while one of a lower
	// waits, and might begin, for itself and for each of its own priority that came
	// before it; 0: DefaultPassed.
	Passed int
	// Now is the clock; nil: the machine's.
	Now func() time.Time
}

// Manager has the scopes of a process. Safe for concurrent use.
type Manager struct {
	opt       Options
	started   time.Time
	system    *Scope
	transient *Scope
	refusals  refusals

	tasks   scheduler
	waiting atomic.Int64 // as scheduler.waiting

	mu sync.Mutex
	// +checklocks:mu
	names map[string]*Scope
	// +checklocks:mu
	layers map[string]Layer
	// +checklocks:mu
	lastOrder uint64
}

// New makes a manager. It returns an ErrInvalid for limits that cannot be.
func New(o Options) (*Manager, error) {
	if o.Order = slices.Clone(o.Order); len(o.Order) == 0 {
		o.Order = []string{"default", "file", "set"}
	}
	if o.Machine == (Machine{}) {
		o.Machine = ThisMachine()
	}
	if o.Setting == nil {
		o.Setting = func(scope string, k Kind) string { return scope + "." + k.String() }
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Waiting <= 0 {
		o.Waiting = DefaultWaiting
	}
	if o.Passed <= 0 {
		o.Passed = DefaultPassed
	}
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the default of those who have no clock of their own
	}
	m := &Manager{opt: o, started: o.Now(), names: make(map[string]*Scope), layers: make(map[string]Layer)}
	m.tasks.m = m
	for name, l := range o.Layers { // order does not matter: each by itself
		if !slices.Contains(o.Order, name) {
			return nil, fmt.Errorf("%w: layer %q is not in the order %q", ErrInvalid, name, o.Order)
		}
		if err := l.check(); err != nil {
			return nil, err
		}
		m.layers[name] = l.clone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.system = m.make(SystemName)
	m.transient = m.make(TransientName, m.system)
	return m, nil
}

func (l Layer) clone() Layer {
	c := make(Layer, len(l))
	for name, v := range l {
		c[name] = maps.Clone(v)
	}
	return c
}

// System returns the scope above all others.
func (m *Manager) System() *Scope { return m.system }

// Transient returns the scope of connections that have not said whose they are.
func (m *Manager) Transient() *Scope { return m.transient }

// Service opens the scope of a service, which stands below System.
func (m *Manager) Service(name string) (*Scope, error) { return m.Open("service:" + name) }

// Client opens the scope of a client, which stands below its services, or others.
func (m *Manager) Client(name string, parents ...*Scope) (*Scope, error) {
	return m.Open("client:"+name, parents...)
}

// Open opens the scope of a name, and makes it below the given scopes, or below
// System, if none are given. One that there is stays below what it stands below, whatever
// is given. Each Open takes a Close. It returns an ErrClosed if one of the given is
// closed, and an ErrInvalid for those that are of another manager, a span's or given
// twice, and for the names of System and Transient.
func (m *Manager) Open(name string, parents ...*Scope) (*Scope, error) {
	if name == "" || name == SystemName || name == TransientName {
		return nil, fmt.Errorf("%w: scope %q cannot be opened", ErrInvalid, name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.names[name]; s != nil {
		s.mu.Lock()
		s.closed.Store(false)
		s.mu.Unlock()
		s.opens++
		return s, nil
	}
	if len(parents) == 0 {
		parents = []*Scope{m.system}
	}
	if err := m.mayBeAbove(parents); err != nil {
		return nil, fmt.Errorf("open scope %s: %w", name, err)
	}
	return m.make(name, parents...), nil
}

// mayBeAbove says whether a scope can stand below others.
//
// +checklocks:m.mu
func (m *Manager) mayBeAbove(parents []*Scope) error {
	for i, p := range parents {
		switch {
		case p == nil || p.m != m || p.owner != nil:
			return fmt.Errorf("%w: what it is to stand below is no scope of this manager with a name", ErrInvalid)
		case slices.Contains(parents[:i], p):
			return fmt.Errorf("%w: it is to stand below %s twice", ErrInvalid, p.name)
		case m.names[p.name] != p || p.closed.Load():
			return fmt.Errorf("%w: %s", ErrClosed, p.name)
		}
	}
	return nil
}

// make makes a scope with a name.
//
// +checklocks:m.mu
func (m *Manager) make(name string, parents ...*Scope) *Scope {
	m.lastOrder++
	s := &Scope{
		m: m, name: name, book: new(limits), order: m.lastOrder, opens: 1,
		parents: slices.Clone(parents), children: make(map[*Scope]struct{}),
	}
	for _, p := range parents {
		p.children[s] = struct{}{}
	}
	s.mu.Lock()
	s.up = above(parents, func(p *Scope) []*Scope {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.up
	})
	s.mu.Unlock()
	m.names[name] = s
	m.apply(s)
	return s
}

// above returns the given scopes and all above them, each once, and each before those
// above it.
func above(parents []*Scope, up func(*Scope) []*Scope) []*Scope {
	var list []*Scope
	for _, p := range parents {
		for _, a := range append([]*Scope{p}, up(p)...) {
			if i := slices.Index(list, a); i >= 0 {
				list = slices.Delete(list, i, i+1) // behind what was found now
			}
			list = append(list, a)
		}
	}
	return list
}

// Close takes back an Open. At the last one what is reserved in the scope itself is
// given back, and nothing more can be reserved in it or below it. It is gone when
// nothing stands below it any more; until then Open finds it again, and opens it for
// what still stands below it, too. A Close too many returns ErrClosed.
func (s *Scope) Close() error {
	m := s.m
	if s.owner != nil || s == m.system || s == m.transient {
		return fmt.Errorf("%w: %s is not closed", ErrInvalid, s.name)
	}
	m.mu.Lock()
	if s.opens == 0 {
		m.mu.Unlock()
		return errClosed(s)
	}
	if s.opens--; s.opens == 0 {
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
		m.drop(s)
	}
	m.mu.Unlock()
	m.tasksFreed()
	return nil
}

// drop forgets a scope that is closed and has nothing below it, and those above it
// that waited for that.
//
// +checklocks:m.mu
func (m *Manager) drop(s *Scope) {
	s.mu.Lock()
	idle := s.spans == nil && s.closed.Load()
	s.mu.Unlock()
	if !idle || s.opens > 0 || len(s.children) > 0 || m.names[s.name] != s {
		return
	}
	delete(m.names, s.name)
	for _, p := range s.parents {
		delete(p.children, s)
		m.drop(p)
	}
}

// SetLayer replaces a layer of limits, for all scopes that are open and those to come.
// It is all or nothing.
func (m *Manager) SetLayer(name string, l Layer) error {
	if !slices.Contains(m.opt.Order, name) {
		return fmt.Errorf("%w: there is no layer %q", ErrInvalid, name)
	}
	if err := l.check(); err != nil {
		return err
	}
	m.mu.Lock()
	m.layers[name] = l.clone()
	m.applyAll()
	m.mu.Unlock()
	m.tasksFreed()
	return nil
}

// Set sets limits of a scope, or of all whose name begins so before the colon, in the
// last layer. It is all or nothing. The zero Limit takes back what was set.
func (m *Manager) Set(scope string, limits Limits) error {
	if err := (Layer{scope: limits}).check(); err != nil {
		return err
	}
	last := m.opt.Order[len(m.opt.Order)-1]
	m.mu.Lock()
	if m.layers[last] == nil {
		m.layers[last] = make(Layer)
	}
	if m.layers[last][scope] == nil {
		m.layers[last][scope] = make(Limits)
	}
	for k, v := range limits {
		if v.form == limitUnsaid {
			delete(m.layers[last][scope], k)
			continue
		}
		m.layers[last][scope][k] = v
	}
	if len(m.layers[last][scope]) == 0 {
		delete(m.layers[last], scope)
	}
	m.applyAll()
	m.mu.Unlock()
	m.tasksFreed()
	return nil
}

// applyAll does as apply with all scopes that are open.
//
// +checklocks:m.mu
func (m *Manager) applyAll() {
	for _, s := range m.names { // order does not matter: each by itself
		m.apply(s)
	}
}

// apply gives a scope the limits that the layers say.
//
// +checklocks:m.mu
func (m *Manager) apply(s *Scope) {
	for k := range NumKinds {
		l := m.resolve(s.name, Kind(k))
		s.book.what[k].Store(&l)
		s.book.n[k].Store(l.n)
	}
}

// resolve returns the limit that the last layer says that says one.
//
// +checklocks:m.mu
func (m *Manager) resolve(name string, k Kind) limit {
	layers := m.layers
	for _, layer := range slices.Backward(m.opt.Order) {
		l, ok := layers[layer].find(name, k)
		if !ok {
			continue
		}
		v := limit{n: l.on(k, m.opt.Machine), block: l.form == limitBlock, origin: layer}
		if l.form == limitShare {
			v.origin = fmt.Sprintf("%s, %v of the machine's", layer, l)
		}
		return v
	}
	return limit{n: unlimited, origin: NoOrigin}
}
