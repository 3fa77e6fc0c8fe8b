package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

// reap releases what the session held. Nothing new is given: its table is
// closed. What a request still uses is released by that request.
func (s *session) reap() {
	handles, idle := s.table.Close()
	// What is in memory only goes at once; what has to write comes after, and
	// one stalled drive does not hold up the others' logs.
	var slow []resource
	for _, v := range idle {
		switch v.(type) {
		case *appenderRef, *mdcRef:
			slow = append(slow, v)
		default:
			s.release(v)
		}
	}
	s.mu.Lock()
	pools := make([]*activePool, 0, len(s.pools))
	for a := range s.pools {
		pools = append(pools, a)
	}
	by, noticed := s.by, s.endedAt
	s.mu.Unlock()
	aborted := 0
	for _, a := range pools {
		aborted += a.disown(s)
	}
	s.releaseSlow(slow)
	s.srv.reaped.Add(1)
	if !s.greeted.Load() {
		return
	}
	e := ioctl.Event{
		Type: ioctl.EventClientReaped, Session: s.id, PID: s.peer.pid, UID: s.peer.uid, Comm: s.peer.comm,
		DetectedBy: by, References: uint32(handles), Aborted: uint32(aborted), Latency: s.srv.clock.Now().Sub(noticed),
	}
	if !s.peer.dead() {
		e.Cause = ioctl.CauseClosed
	}
	s.srv.log.Info("session reaped", s.who(), slog.String("detected_by", by.String()), slog.String("cause", e.Cause.String()),
		slog.Int("handles", handles), slog.Int("aborted", aborted), slog.Duration("latency", e.Latency))
	s.srv.tellEvent(e)
}

// slowReleases is how many logs of one session are closed at the same time.
const slowReleases = 8

func (s *session) releaseSlow(list []resource) {
	var wg sync.WaitGroup
	next := make(chan resource)
	for range min(slowReleases, len(list)) {
		wg.Go(func() {
			for v := range next {
				s.release(v)
			}
		})
	}
	for _, v := range list {
		next <- v
	}
	close(next)
	wg.Wait()
}

// adopt records that an uncommitted object is the session's.
func (a *activePool) adopt(s *session, id layout.ObjectID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owners[id] = s
	if a.own[s] == nil {
		a.own[s] = make(map[layout.ObjectID]struct{})
	}
	a.own[s][id] = struct{}{}
}

// owner returns the session whose uncommitted object it is, or nil.
func (a *activePool) owner(id layout.ObjectID) *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owners[id]
}

// settled says that an object is committed or aborted: it is nobody's any more.
func (a *activePool) settled(id layout.ObjectID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.owners[id]
	delete(a.owners, id)
	a.dropOwn(s, id)
	if _, ok := a.orphaned[id]; ok {
		delete(a.orphaned, id)
		a.orphans.Add(-1)
	}
}

// +checklocks:a.mu
func (a *activePool) dropOwn(s *session, id layout.ObjectID) {
	delete(a.own[s], id)
	if len(a.own[s]) == 0 {
		delete(a.own, s)
	}
}

// disown orphans a session's uncommitted objects and aborts those that nobody
// is using; it returns how many. The others are swept later.
func (a *activePool) disown(s *session) int {
	a.mu.Lock()
	n := len(a.own[s])
	for id := range a.own[s] {
		a.orphaned[id] = struct{}{}
	}
	a.orphans.Add(int64(n))
	delete(a.own, s)
	a.mu.Unlock()
	return a.sweep(s.srv)
}

// orphan disowns one object.
func (a *activePool) orphan(s *session, id layout.ObjectID) {
	a.mu.Lock()
	a.dropOwn(s, id)
	if _, ok := a.orphaned[id]; !ok {
		a.orphaned[id] = struct{}{}
		a.orphans.Add(1)
	}
	a.mu.Unlock()
	a.sweep(s.srv)
}

// sweep aborts the orphans that nobody is using and returns how many. Whoever
// was using one sweeps after letting go of it; as sweeps exclude each other,
// the last one finds it unused.
func (a *activePool) sweep(srv *Server) int {
	if a.orphans.Load() == 0 {
		return 0
	}
	a.sweeping.Lock()
	defer a.sweeping.Unlock()
	a.mu.Lock()
	ids := make([]layout.ObjectID, 0, len(a.orphaned))
	for id := range a.orphaned {
		ids = append(ids, id)
	}
	a.mu.Unlock()
	aborted := 0
	for _, id := range ids {
		fate, err := abortOrphan(srv.hard, a.pool, id)
		if err != nil {
			srv.log.Warn("cannot abort what a client left", slog.String("object", id.String()), slog.Any("error", err))
		}
		if fate == orphanAborted {
			aborted++
		}
		if fate != orphanInUse {
			a.settled(id)
		}
	}
	return aborted
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
	var obj api.Object
	var err error
	if id.Kind() == layout.KindMlog {
		obj, err = p.Mlog(ctx, id)
	} else {
		obj, err = p.Mblock(ctx, id)
	}
	if errors.Is(err, api.ENOENT) || errors.Is(err, api.EBADF) {
		return orphanSettled, nil // aborted by its session, or gone with its pool
	}
	if err != nil {
		return orphanSettled, err
	}
	err = obj.Abort(ctx)
	if err == nil {
		return orphanAborted, nil
	}
	info, ierr := obj.Info(ctx)
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
