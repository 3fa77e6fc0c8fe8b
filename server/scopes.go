package server

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/scope"
)

// The layers of limits, each before those that decide over it.
const (
	layerDefault = "default" // built in
	layerLimits  = "limits"  // of Limits, which say some of it already
	layerFile    = "file"
	layerSet     = "set" // while running
)

// ScopeOptions are what [Scopes] are made of.
type ScopeOptions struct {
	Limits Limits // Sessions, ArenaTotal and HelloTimeout are those of the scopes, too
	// File are the limits that the configuration has, by the names of scopes; see
	// [Scopes].
	File    scope.Layer
	Machine scope.Machine // what shares are of; zero: this machine
	Logger  *slog.Logger  // of refusals; nil: nothing is logged
	// KeepGoLimit leaves the Go runtime's memory limit as it is: somebody else set it.
	KeepGoLimit bool
}

// Scopes is the [Reserver] that counts what clients use in scopes, with limits:
//
//	system ── transient ── session:N      of a connection that has not said hello
//	   ├── service:POOL ───────┐
//	   └── user:UID ── client:UID/PID ── session:N
//
// A session stands below the services of the pools that it opened, until its end. Memory
// is that of messages, arenas and handles; data of requests lies in these. Safe for
// concurrent use.
type Scopes struct {
	m      *scope.Manager
	opt    ScopeOptions
	arenas int64 // Limits.ArenaTotal
	// patience is for how long a step that others will soon wait for is held up.
	patience time.Duration

	mu sync.Mutex
	// +checklocks:mu
	services map[string]*scope.Scope // of active pools

	wrong atomic.Uint64 // sessions whose books were
}

// books are a session's.
type books struct {
	session *scope.Scope
	wrong   atomic.Bool

	mu sync.Mutex
	// +checklocks:mu
	opened []*scope.Scope // client and user, then services; closed with the session
}

// NewScopes makes the scopes of a daemon. It returns an error for limits that cannot be.
func NewScopes(o ScopeOptions) (*Scopes, error) {
	o.Limits = o.Limits.withDefaults()
	if o.Machine == (scope.Machine{}) {
		o.Machine = scope.ThisMachine()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := scope.New(scope.Options{
		Machine: o.Machine,
		Order:   []string{layerDefault, layerLimits, layerFile, layerSet},
		Layers: map[string]scope.Layer{
			layerDefault: defaultScopes(), layerLimits: limitedScopes(o.Limits), layerFile: o.File,
		},
		Setting: scopeSetting,
		Refused: func(e *scope.LimitError, more uint64) {
			o.Logger.Warn("a limit refused a client", slog.String("scope", e.Scope), slog.String("kind", e.Kind.String()),
				slog.Int64("used", e.Used), slog.Int64("asked", e.Asked), slog.Int64("limit", e.Limit),
				slog.String("setting", e.Setting), slog.Uint64("untold", more))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s := &Scopes{m: m, opt: o, arenas: o.Limits.ArenaTotal, patience: stepPatience, services: make(map[string]*scope.Scope)}
	if err := m.System().Charge(scope.Memory, fixedBytes); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s.tellRuntime()
	return s, nil
}

// fixedBytes is the memory of a daemon that nobody is connected to and that has no pool:
// the program, the Go runtime, the event ring.
const fixedBytes = 48 << 20

// keptPart is the part of the daemon's memory that free buffers for I/O may keep.
const keptPart = 64

// programBytes is memory that is neither the Go runtime's nor arenas': the program's own
// pages and the rings that the kernel has for the daemon.
const programBytes = 24 << 20

// SetFile replaces the limits of the configuration, while running, and takes back all that
// was set, so that nobody stays locked out by that. It is all or nothing.
func (s *Scopes) SetFile(file scope.Layer) error {
	err := s.m.SetLayer(layerFile, file)
	if err == nil {
		err = s.m.SetLayer(layerSet, nil)
	}
	if err != nil {
		return fmt.Errorf("set the limits of scopes: %w", err)
	}
	s.tellRuntime()
	return nil
}

// SetScopeLimits replaces the limits of the configuration, while running. It is all or
// nothing, and does nothing where there are no Scopes.
func (s *Server) SetScopeLimits(file scope.Layer) error {
	if s.opt.Scopes == nil {
		return nil
	}
	return s.opt.Scopes.SetFile(file)
}

// Set sets limits of a scope while running, or takes back what was set. It is all or
// nothing.
func (s *Scopes) Set(name string, limits scope.Limits) error {
	if err := s.m.Set(name, limits); err != nil {
		return err
	}
	s.tellRuntime()
	return nil
}

// List returns all scopes.
func (s *Scopes) List() []scope.Entry { return s.m.List() }

// snapshot returns what metrics tell.
func (s *Scopes) snapshot() (list []scope.Entry, refused []RefusedCount, wrong uint64) {
	if s == nil {
		return nil, nil, 0
	}
	for _, e := range s.m.List() {
		class := scopeClass(e.Scope)
		if class == scope.SystemName || class == scope.TransientName || class == "service" {
			list = append(list, e)
		}
	}
	for k := range scope.Kind(scope.NumKinds) {
		refused = append(refused, RefusedCount{k.String(), s.m.Refused(k)})
	}
	return list, refused, s.wrong.Load()
}

// begin opens the scope of a session, with its connection.
func (s *Scopes) begin(c *Client) error {
	until := time.Now().Add(s.opt.Limits.HelloTimeout) //nolint:forbidigo // the scopes' clock is the machine's
	b, err := s.m.OpenConnection(fmt.Sprintf("session:%d", c.Session), scope.Inbound, until)
	if err != nil {
		return err
	}
	c.books = &books{session: b}
	return nil
}

// end closes the scope of a session, and what it had opened.
func (s *Scopes) end(c *Client) {
	b := c.books
	b.mu.Lock()
	list := slices.Concat([]*scope.Scope{b.session}, b.opened)
	b.opened = nil
	b.mu.Unlock()
	var errs []error
	for _, o := range list {
		errs = append(errs, o.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.isWrong(c, err)
	}
}

// isWrong is what follows when the server gives back what it has not reserved for a
// session, or has ended its scope before: the server's mistake, of which other sessions are
// to notice nothing. What was asked has changed nothing. The session is ended, and
// then its scope gives back what it really has.
func (s *Scopes) isWrong(c *Client, err error) {
	if c.books.wrong.Swap(true) {
		return
	}
	s.wrong.Add(1)
	s.opt.Logger.Error("the books of a session are wrong: it is ended", slog.Uint64("session", c.Session),
		slog.Int("pid", int(c.PID)), slog.Any("error", err))
	if c.end != nil {
		c.end()
	}
}

// Greet implements [Reserver]: the session moves from Transient to its client.
func (s *Scopes) Greet(c *Client) error {
	user, err := s.m.Open(fmt.Sprintf("user:%d", c.UID))
	if err != nil {
		return err
	}
	client, err := s.m.Open(fmt.Sprintf("client:%d/%d", c.UID, c.PID), user)
	if err != nil {
		return errors.Join(err, user.Close())
	}
	b := c.books
	if err := b.session.Move(client); err != nil {
		return errors.Join(err, client.Close(), user.Close())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened = append(b.opened, client, user)
	return nil
}

// Enter implements [Reserver]: the session stands below the pool's service, too.
func (s *Scopes) Enter(c *Client, pool string) error {
	b := c.books
	b.mu.Lock()
	defer b.mu.Unlock()
	service, err := s.m.Service(pool)
	if err != nil {
		return err
	}
	parents := []*scope.Scope{b.opened[0]} // the client; user is above that
	parents = append(parents, b.opened[2:]...)
	if slices.Contains(parents, service) {
		return service.Close()
	}
	if err := b.session.Move(append(parents, service)...); err != nil {
		return errors.Join(err, service.Close())
	}
	b.opened = append(b.opened, service)
	return nil
}

// follow makes the services those of the active pools, each charged with the memory that
// the pool has of its own, in bytes: nobody asked for that, so it is not refused, but
// leaves less for clients.
func (s *Scopes) follow(pools map[string]int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, service := range s.services {
		if _, active := pools[name]; !active {
			delete(s.services, name)
			errs = append(errs, service.Close())
		}
	}
	for name, bytes := range pools {
		service := s.services[name]
		if service == nil {
			var err error
			if service, err = s.m.Service(name); err != nil {
				errs = append(errs, err)
				continue
			}
			s.services[name] = service
		}
		errs = append(errs, service.Charge(scope.Memory, bytes))
	}
	return errors.Join(errs...)
}

// kindOfResource says what a resource is to the scopes; false: it is counted in others.
func kindOfResource(r Resource) (scope.Kind, bool) {
	switch r {
	case Connections:
		return scope.Inbound, true
	case Descriptors:
		return scope.Descriptors, true
	case Requests:
		return scope.TasksMedium, true
	case Urgent:
		return scope.TasksHigh, true
	case MessageBytes, ArenaBytes, HandleBytes, CreditBytes:
		return scope.Memory, true
	case IOBytes:
	}
	return 0, false
}

// arenaPriority leaves the last fifth of each limit to what requests take: who has
// filled the rest with arenas can still ask.
const arenaPriority = 203

// Reserve implements [Reserver].
func (s *Scopes) Reserve(c *Client, what Resource, n int64) error {
	k, counted := kindOfResource(what)
	switch {
	case !counted:
		return nil
	case what == Connections:
		return s.begin(c)
	}
	var err error
	if what == ArenaBytes {
		err = c.books.session.ReserveMemory(n, arenaPriority)
	} else {
		err = c.books.session.Reserve(k, n)
	}
	if errors.Is(err, scope.ErrClosed) { // it has all that it stands below open
		s.isWrong(c, err)
	}
	return err
}

// Release implements [Reserver].
func (s *Scopes) Release(c *Client, what Resource, n int64) {
	k, counted := kindOfResource(what)
	if !counted {
		return
	}
	if what == Connections {
		s.end(c)
		return
	}
	if err := c.books.session.Release(k, n); err != nil {
		s.isWrong(c, err)
	}
}
