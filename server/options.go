package server

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// Limits bound what clients can make the daemon hold. A zero field is its
// default.
type Limits struct {
	Sessions     int           // open at one time; 1024
	Requests     int           // in flight per session; 64
	Handles      int           // per session; 16384
	Arenas       int           // per session; 4
	ArenaDefault int64         // bytes of an arena of no given size; 8 MiB
	ArenaSession int64         // bytes of one session's arenas; 64 MiB
	ArenaTotal   int64         // bytes of all sessions' arenas; 1 GiB
	HelloTimeout time.Duration // from connect to hello; 5 s
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def64 := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.Sessions, 1024)
	def(&l.Requests, 64)
	def(&l.Handles, 16384)
	def(&l.Arenas, 4)
	def64(&l.ArenaDefault, 8<<20)
	def64(&l.ArenaSession, 64<<20)
	def64(&l.ArenaTotal, 1<<30)
	if l.HelloTimeout == 0 {
		l.HelloTimeout = 5 * time.Second
	}
	return l
}

// maxSessions bounds Limits.Sessions.
const maxSessions = 1 << 20

// maxArenas bounds Limits.Arenas.
const maxArenas = 64

// DefaultLimits returns the limits that zero fields stand for.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

// LimitError says which limit is wrong.
type LimitError struct {
	Name   string // of the field, in lower case with underscores
	Detail string // what is wrong with it
}

func (e *LimitError) Error() string { return fmt.Sprintf("limit %s %s", e.Name, e.Detail) }

// Validate says what is wrong with limits that are all set: a *LimitError.
func (l Limits) Validate() error {
	for _, c := range []struct {
		name      string
		v, lo, hi int64
	}{
		{"sessions", int64(l.Sessions), 1, maxSessions},
		{"requests", int64(l.Requests), 1, 4096},
		{"handles", int64(l.Handles), 1, uhandle.MaxHandles},
		{"arenas", int64(l.Arenas), 1, maxArenas},
		{"arena_default", l.ArenaDefault, ioctl.ArenaAlign, 1 << 32},
		{"arena_session", l.ArenaSession, l.ArenaDefault, 1 << 36},
		{"arena_total", l.ArenaTotal, l.ArenaSession, 1 << 44},
		{"hello_timeout", int64(l.HelloTimeout), int64(time.Millisecond), int64(time.Hour)},
	} {
		if c.v < c.lo || c.v > c.hi {
			return &LimitError{Name: c.name, Detail: fmt.Sprintf("is %d: want %d to %d", c.v, c.lo, c.hi)}
		}
	}
	if l.ArenaDefault%ioctl.ArenaAlign != 0 {
		return &LimitError{Name: "arena_default", Detail: fmt.Sprintf("is %d: want a multiple of %d", l.ArenaDefault, ioctl.ArenaAlign)}
	}
	return nil
}

// DefaultCallBack and MaxCallBack are of Options.CallBack.
const (
	DefaultCallBack = credit.DefaultCallBack
	MaxCallBack     = 24 * time.Hour
)

// Options are what a server is made of.
type Options struct {
	Backend Backend      // required
	Logger  *slog.Logger // nil: nothing is logged
	Version string       // the daemon's, for clients that ask
	Limits  Limits
	// Scopes decide how much of the daemon clients may use; nil: Reserver does.
	Scopes *Scopes
	// Reserver does so where there are no Scopes; nil: Limits alone do.
	Reserver Reserver
	// Owners say which users act for which owners of pools; see SetOwners.
	Owners []OwnerRule
	// Deaths notice clients' deaths beside the pidfds, and before them.
	Deaths []uhandle.Source

	// CallBack is how long who has a credit that others wait for may hold on before it
	// is taken: at most MaxCallBack. 0: DefaultCallBack; negative: for ever.
	CallBack time.Duration

	// Loops is how many I/O loops serve clients' rings at most, each a thread that
	// sleeps while there is nothing to do. They start as they are needed. 0: as
	// DefaultLoops says; negative: clients have no rings.
	Loops int

	// loopTest makes I/O loops do as elsewhere.
	loopTest loopTest
	// now is what grants go by; nil: the server's clock.
	now func() time.Time
	// eventPatience is how long the event of a session's end waits; 0: eventPatience.
	eventPatience time.Duration
	// noPeerPidfd makes the server do as on a kernel without SO_PEERPIDFD.
	noPeerPidfd bool
}

func (o Options) validate() error {
	if o.Backend == nil {
		return errors.New("server: no backend")
	}
	if err := o.Limits.Validate(); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	if o.CallBack > MaxCallBack {
		return fmt.Errorf("server: call-backs of %v: at most %v", o.CallBack, MaxCallBack)
	}
	if o.Loops > MaxLoops {
		return fmt.Errorf("server: %d I/O loops: at most %d", o.Loops, MaxLoops)
	}
	return nil
}
