package uhandle

import (
	"sync"
	"time"
)

// Source is something that notices when processes die. Safe for concurrent use.
type Source interface {
	// Name is what the source is called in a [Death].
	Name() string
	// Watch calls died, at most once and from any goroutine, when p has died,
	// with what the source knows of how. [Pidfd] misses none, and calls it at
	// once if p is dead already; others may miss one. It is never called for
	// another process that gets p's number. Between stop's return and for ever
	// after, died is not running.
	Watch(p *Process, died func(Death)) (stop func(), err error)
}

// Pidfd is the source that is always there: the pidfd of the process itself.
// It has a goroutine for each process that is watched.
type Pidfd struct{}

// Name implements [Source].
func (Pidfd) Name() string { return "pidfd" }

// Watch implements [Source].
func (Pidfd) Watch(p *Process, died func(Death)) (stop func(), err error) {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		dead := false
		err := raw.Read(func(fd uintptr) bool {
			dead = readable(int(fd))
			return dead
		})
		if err == nil && dead {
			died(Death{})
		}
	}()
	return func() {
		// Wakes the goroutine, if it waits.
		_ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // fails only when it is closed, which wakes it too
		<-done
	}, nil
}

// Vigil watches one process through several sources.
type Vigil struct {
	p     *Process
	act   func(by string)
	stops []func()

	sources int           // that are to watch it
	settled chan struct{} // closed when it is known how it died, or that nobody will say

	mu sync.Mutex
	// +checklocks:mu
	by string // who noticed its death first, or ""
	// +checklocks:mu
	known bool // death is; settled is closed
	// +checklocks:mu
	death Death
}

// Watch watches p through all the sources that can. The first that notices its
// death calls act with its name, once; the others find it done. act must not wait: how the
// process died is looked up after it. The error is that of a source that cannot
// watch, and the vigil is held by the others. Stop it.
func Watch(p *Process, sources []Source, act func(by string)) (*Vigil, error) {
	v := &Vigil{p: p, act: act, sources: len(sources), settled: make(chan struct{})}
	var failed error
	for _, s := range sources {
		stop, err := s.Watch(p, func(d Death) { v.died(s.Name(), d) })
		if err != nil {
			failed = err
			continue
		}
		v.stops = append(v.stops, stop)
	}
	return v, failed
}

// died is told by each source.
func (v *Vigil) died(by string, d Death) {
	v.mu.Lock()
	first := v.by == ""
	if first {
		v.by = by
	}
	v.mu.Unlock()
	if first {
		v.act(by)
		if d.Cause == CauseUnknown {
			d = v.p.status()
		}
	}
	v.settle(d)
}

// settle takes what is said of how the process died, unless that is known. Where
// nothing is said another source may yet know.
func (v *Vigil) settle(d Death) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known || d.Cause == CauseUnknown && v.sources > 1 {
		return
	}
	d.DetectedBy = v.by
	v.known, v.death = true, d
	close(v.settled)
}

// Stop ends the vigil. When it returns act is not running.
func (v *Vigil) Stop() {
	for _, stop := range v.stops {
		stop()
	}
}

// How long Verdict waits.
const (
	// dyingTime is for a process that is known to be dying: its socket is
	// closed a little before its pidfd is ready.
	dyingTime = 100 * time.Millisecond
	// lookTime is for one of which nothing is known.
	lookTime = 10 * time.Millisecond
	// lateTime is how much longer it waits for one that is dead or dying for
	// certain: it may have much to give back, or many die with it.
	lateTime = time.Second
)

// Verdict says how the client ended whose session has ended. A process that
// lives is not waited for: it has closed its session.
func (v *Vigil) Verdict() Death {
	v.mu.Lock()
	noticed := v.by != ""
	v.mu.Unlock()
	wait := dyingTime
	if !noticed && !v.p.Dead() {
		st, err := v.p.stat()
		switch {
		case err == nil && !st.exiting():
			return Death{Cause: CauseClosed}
		case err != nil:
			wait = lookTime
		}
	}
	if v.knownIn(wait) || noticed || v.p.Dead() || v.p.dying() {
		v.knownIn(lateTime)
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.death
	}
	return Death{Cause: CauseClosed}
}

// knownIn waits until it is known how the process died; false: not within the time.
func (v *Vigil) knownIn(wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-v.settled:
		return true
	case <-t.C:
		return false
	}
}
