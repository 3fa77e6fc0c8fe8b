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

	settled chan struct{} // closed when death is all that will be known of it

	mu sync.Mutex
	// +checklocks:mu
	noticed bool
	// +checklocks:mu
	death Death
}

// Watch watches p through all the sources that can. The first that notices its
// death calls act with its name, once; the others find it done. act must not wait: how the
// process died is looked up after it. The error is that of a source that cannot
// watch, and the vigil is held by the others. Stop it.
func Watch(p *Process, sources []Source, act func(by string)) (*Vigil, error) {
	v := &Vigil{p: p, act: act, settled: make(chan struct{})}
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
	first := !v.noticed
	v.noticed = true
	v.mu.Unlock()
	if !first {
		return
	}
	v.act(by)
	if d.Cause == CauseUnknown {
		d = v.p.status()
	}
	d.DetectedBy = by
	v.mu.Lock()
	v.death = d
	v.mu.Unlock()
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
)

// Verdict says how the client ended whose session has ended. A process that
// lives is not waited for: it has closed its session.
func (v *Vigil) Verdict() Death {
	v.mu.Lock()
	known := v.noticed
	v.mu.Unlock()
	wait := dyingTime
	if !known && !v.p.Dead() {
		st, err := v.p.stat()
		switch {
		case err == nil && !st.exiting():
			return Death{Cause: CauseClosed}
		case err != nil:
			wait = lookTime
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-v.settled:
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.death
	case <-t.C:
	}
	if known || v.p.Dead() || v.p.dying() {
		return Death{} // it has only just died, or has much to give back
	}
	return Death{Cause: CauseClosed}
}
