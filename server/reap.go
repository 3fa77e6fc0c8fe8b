package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// eventPatience is how long the event of a session's end waits for what its
// drives hold up, so that it tells all that was reclaimed. Nothing else waits.
const eventPatience = 250 * time.Millisecond

// reap releases what the session held. Nothing new is given: its table is
// closed. What a request still uses is released by that request. told is closed
// when its end has been told; how the process ended may be known late.
func (s *session) reap() (told <-chan struct{}) {
	// What is in memory only goes at once; what may have to wait comes after, and
	// one stalled drive does not hold up the others' logs.
	s.letGo()
	s.srv.dying.remove(s)
	logs := s.takeSlow()
	for _, a := range s.opened() {
		a.disown(s)
	}
	s.srv.reaped.Add(1)
	closing := new(atomic.Int64)
	done := s.closeLogs(logs, closing)
	told = s.tellWhen(done, closing)
	<-done
	return told
}

// tellWhen tells of the session's end when all is released, or after eventPatience.
func (s *session) tellWhen(done <-chan struct{}, closing *atomic.Int64) <-chan struct{} {
	told, released := make(chan struct{}), s.srv.clock.Now()
	go func() {
		defer close(told)
		if !s.greeted.Load() {
			return
		}
		patience := time.NewTimer(cmp.Or(s.srv.opt.eventPatience, eventPatience))
		select {
		case <-done:
			released = s.srv.clock.Now()
		case <-patience.C:
		}
		patience.Stop()
		s.tellReaped(closing.Load(), released)
	}()
	return told
}

// opened returns the pools that the session has ever opened.
func (s *session) opened() []*activePool {
	s.mu.Lock()
	defer s.mu.Unlock()
	pools := make([]*activePool, 0, len(s.pools))
	for a := range s.pools {
		pools = append(pools, a)
	}
	return pools
}

// closeLogs closes logs that the session had open, each by itself and in its turn: one
// whose drive is stalled is in no other's way. The channel is closed when all are,
// and the requests that were in flight have ended; closing counts those that
// are not closed yet.
func (s *session) closeLogs(logs []resource, closing *atomic.Int64) <-chan struct{} {
	closing.Store(int64(len(logs)))
	var wg sync.WaitGroup
	for _, v := range logs {
		wg.Go(func() {
			end, err := s.srv.fair.turn(s.srv.hard, s.flow, durable, 0)
			if err == nil { // else the daemon stops, and does not wait for turns
				defer end()
			}
			s.release(v)
			closing.Add(-1)
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		s.requests.Wait()
		close(done)
	}()
	return done
}

// tellReaped tells that the session has ended, how, and what was reclaimed.
func (s *session) tellReaped(closing int64, released time.Time) {
	s.mu.Lock()
	by, noticed, handles, free := s.by, s.endedAt, s.held, s.freeAt
	s.mu.Unlock()
	e := ioctl.Event{
		Type: ioctl.EventClientReaped, Session: s.id, PID: s.peer.pid, UID: s.peer.uid, Comm: s.peer.comm,
		DetectedBy: by, References: uint32(handles), Aborted: uint32(s.aborted.Load()), Credits: s.creditsLost.Load(),
		Latency: released.Sub(noticed), Free: free,
	}
	if closing > 0 {
		e.Text = fmt.Sprintf("%d of its logs are still being closed: their drives are slow", closing)
	}
	if s.vigil != nil {
		d := s.vigil.Verdict()
		e.Code, e.Signal, e.Core, e.Exit = int32(d.Code), int32(d.Signal), d.Core, d.At
		switch d.Cause {
		case uhandle.CauseExit:
			e.Cause = ioctl.CauseExit
		case uhandle.CauseSignal:
			e.Cause = ioctl.CauseSignal
		case uhandle.CauseClosed:
			e.Cause = ioctl.CauseClosed
		case uhandle.CauseUnknown:
		}
	}
	s.srv.log.Info("session reaped", s.who(), slog.String("detected_by", by.String()),
		slog.String("cause", e.Cause.String()), slog.Int("code", int(e.Code)), slog.Int("signal", int(e.Signal)),
		slog.Int("handles", handles), slog.Uint64("aborted", uint64(e.Aborted)), slog.Duration("latency", e.Latency))
	s.srv.tellEvent(e)
}

// adopt records that an uncommitted object is the session's.
func (a *activePool) adopt(s *session, id layout.ObjectID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adoptLocked(s, id)
}

// +checklocks:a.mu
func (a *activePool) adoptLocked(s *session, id layout.ObjectID) {
	a.adopters[id] = s
	a.tellFate(id)
	if a.own[s] == nil {
		a.own[s] = make(map[layout.ObjectID]struct{})
	}
	a.own[s][id] = struct{}{}
}

// adopter returns the session whose uncommitted object it is, or nil.
func (a *activePool) adopter(id layout.ObjectID) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adopters[id]
}

// settled says that a session's object is committed or aborted: it is nobody's
// any more. By now its id may have been given again, to another session.
func (a *activePool) settled(s *session, id layout.ObjectID) {
	a.credits.committed(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropOwn(s, id)
	if a.adopters[id] == s {
		delete(a.adopters, id)
		a.tellFate(id)
	}
	if a.orphaned[id] == s {
		delete(a.orphaned, id)
		a.orphans.Add(-1)
	}
}

// fate returns a channel that is closed when a session's uncommitted object is settled,
// or another's; nil: it is.
func (a *activePool) fate(s *session, id layout.ObjectID) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.adopters[id] != s {
		return nil
	}
	fate := a.fates[id]
	if fate == nil {
		fate = make(chan struct{})
		a.fates[id] = fate
	}
	return fate
}

// tellFate says that an object has another adopter, or none.
//
// +checklocks:a.mu
func (a *activePool) tellFate(id layout.ObjectID) {
	if fate := a.fates[id]; fate != nil {
		delete(a.fates, id)
		close(fate)
	}
}

// dropOwn says that an object is not the session's any more, nor its to grant.
//
// +checklocks:a.mu
func (a *activePool) dropOwn(s *session, id layout.ObjectID) {
	a.grants.dropOf(s, id)
	delete(a.own[s], id)
	if len(a.own[s]) == 0 {
		delete(a.own, s)
	}
}

// sweptAlong is how many orphans of others the end of a session sweeps, at most.
const sweptAlong = 64

// disown orphans a session's uncommitted objects and aborts those that nobody
// is using. The others are swept later, and so are some that others left: a commit
// whose request gave up comes through without anybody who sweeps.
func (a *activePool) disown(s *session) {
	a.mu.Lock()
	ids := make([]layout.ObjectID, 0, len(a.own[s])+min(len(a.orphaned), sweptAlong))
	for id := range a.orphaned {
		if len(ids) == sweptAlong {
			break
		}
		ids = append(ids, id)
	}
	for id := range a.own[s] {
		a.orphanLocked(s, id)
		ids = append(ids, id)
	}
	a.mu.Unlock()
	a.sweep(s.srv, ids...)
}

// orphan disowns one object.
func (a *activePool) orphan(s *session, id layout.ObjectID) {
	a.mu.Lock()
	a.orphanLocked(s, id)
	a.mu.Unlock()
	a.sweep(s.srv, id)
}

// +checklocks:a.mu
func (a *activePool) orphanLocked(s *session, id layout.ObjectID) {
	a.dropOwn(s, id)
	if a.orphaned[id] == nil {
		a.orphans.Add(1)
	}
	a.orphaned[id] = s // the last to whom the id was given
}

// sweep aborts those of the objects that are orphans and that nobody is using,
// each counted for its session. Whoever was using one sweeps it after letting go of
// it; as sweeps exclude each other, the last one finds it unused.
func (a *activePool) sweep(srv *Server, ids ...layout.ObjectID) {
	if a.orphans.Load() == 0 {
		return
	}
	for _, id := range ids {
		a.sweepOne(srv, id)
	}
}

func (a *activePool) sweepOne(srv *Server, id layout.ObjectID) {
	a.sweeping.Lock()
	defer a.sweeping.Unlock()
	a.mu.Lock()
	s, leaving := a.orphaned[id], a.leaving
	a.mu.Unlock()
	if s == nil || leaving { // it goes with the pool, or is swept by end
		return
	}
	fate, err := abortOrphan(srv.hard, a.pool, id)
	if err != nil {
		srv.complaints.Warn("cannot abort what a client left", slog.String("object", id.String()), slog.Any("error", err))
	}
	if fate == orphanAborted {
		s.aborted.Add(1)
	}
	if fate != orphanInUse {
		a.settled(s, id)
	}
}

// orphanFate is what became of an orphan.
type orphanFate int

const (
	orphanInUse   orphanFate = iota // by somebody who will sweep
	orphanAborted                   // now
	orphanSettled                   // committed or aborted before, or beyond help
)

// abortOrphan aborts an uncommitted object if nobody is using it.
func abortOrphan(ctx context.Context, p Pool, id layout.ObjectID) (orphanFate, error) {
	info, err := p.Describe(ctx, id)
	switch {
	case errors.Is(err, api.ENOENT), errors.Is(err, api.EBADF): // gone, by itself or with its pool
		return orphanSettled, nil
	case err != nil:
		return orphanSettled, err
	case info.State == api.StateCommitted:
		return orphanSettled, nil // its commit came through
	}
	var obj api.Object
	if id.Kind() == layout.KindMlog {
		obj, err = p.Mlog(ctx, id)
	} else {
		obj, err = p.Mblock(ctx, id)
	}
	if errors.Is(err, api.ENOENT) {
		// A request of its session is aborting it. That may fail yet, if a
		// commit came between; if not, the request settles it.
		return orphanInUse, nil
	}
	if errors.Is(err, api.EBADF) {
		return orphanSettled, nil // gone with its pool
	}
	if err != nil {
		return orphanSettled, err
	}
	err = obj.Abort(ctx)
	if err == nil {
		return orphanAborted, nil
	}
	info, ierr := obj.Info(ctx) // what it is now
	perr := obj.Put()
	switch {
	case ierr != nil || perr != nil:
		return orphanSettled, errors.Join(err, ierr, perr)
	case info.State != api.StateUncommitted:
		return orphanSettled, nil // its commit was under way and has come through
	case errors.Is(err, api.EBUSY), errors.Is(err, api.ESTATE):
		return orphanInUse, nil
	}
	return orphanSettled, err
}
