package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/uhandle"
)

// The kinds of handle.
const (
	kindPool uhandle.Kind = iota + 1
	kindMblock
	kindMlog
	kindAppender
	kindReader
	kindMDC
	kindList
)

// resource is what a handle stands for.
type resource interface {
	// home returns the pool it belongs to.
	home() *activePool
	// object returns the object that it keeps a reference on, or 0.
	object() layout.ObjectID
	// close gives it back to the pool. It is called once.
	close(ctx context.Context) error
	// taken says, once, that the caller is the one to close it.
	taken() bool
	// wasTaken says whether somebody is.
	wasTaken() bool
	// fence says that nothing more is to be begun with it: its credit was taken.
	fence()
	isFenced() bool
}

// once is a part of every resource: it is closed once, and fenced for ever.
type once struct{ closed, fenced atomic.Bool }

func (o *once) taken() bool    { return !o.closed.Swap(true) }
func (o *once) wasTaken() bool { return o.closed.Load() }
func (o *once) fence()         { o.fenced.Store(true) }
func (o *once) isFenced() bool { return o.fenced.Load() }

// common is a part of every resource but a poolRef.
type common struct {
	once
	ref *poolRef // the handle it was opened through
}

func (c *common) home() *activePool { return c.ref.pool }
func (c *common) parent() *poolRef  { return c.ref }

// poolRef is an open pool.
type poolRef struct {
	once
	pool     *activePool
	writable bool
	children atomic.Int64               // objects and so on opened through it
	credits  atomic.Pointer[creditLink] // nil: it is no debtor
}

func (p *poolRef) home() *activePool       { return p.pool }
func (p *poolRef) object() layout.ObjectID { return 0 }

func (p *poolRef) close(context.Context) error {
	if l := p.credits.Load(); l != nil {
		if n := l.close(); l.s.gone.Load() {
			l.s.creditsLost.Add(uint32(n))
		}
	}
	p.pool.closed()
	return nil
}

// objectRef is a handle on an mblock or an mlog.
type objectRef struct {
	common
	obj    api.Object
	mblock api.Mblock   // or nil
	mlog   api.Mlog     // or nil
	failed atomic.Int64 // chained writes; see ringOp.inChain
	broken atomic.Bool  // one of them by its device; set before failed counts it
}

func newObjectRef(ref *poolRef, obj api.Object) *objectRef {
	o := &objectRef{common: common{ref: ref}, obj: obj}
	o.mblock, _ = obj.(api.Mblock)
	o.mlog, _ = obj.(api.Mlog)
	return o
}

func (o *objectRef) kind() uhandle.Kind {
	if o.mblock != nil {
		return kindMblock
	}
	return kindMlog
}

func (o *objectRef) object() layout.ObjectID     { return o.obj.ID() }
func (o *objectRef) close(context.Context) error { return o.obj.Put() }

// appenderRef is a log open for append.
type appenderRef struct {
	common
	id  layout.ObjectID
	app api.Appender
	s   *session // that its pages are reserved for
}

func (a *appenderRef) object() layout.ObjectID { return a.id }

func (a *appenderRef) close(ctx context.Context) error { // nobody uses it any more
	err := a.app.Close(ctx)
	a.s.logs.give(a.s, HandleBytes, appenderBytes)
	return err
}

// turn lets one in at a time. Unlike with a mutex, the wait for it ends with a
// context: the drive of the one that is in may be stalled.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return api.ContextError("", context.Cause(ctx))
	}
}

func (t turn) end() { <-t }

// readerRef is a log or an MDC open for read.
type readerRef struct {
	common
	id     layout.ObjectID
	turn   turn // a reader is not for concurrent use
	reader api.LogReader
	s      *session // that its windows are reserved for
}

func (l *readerRef) object() layout.ObjectID { return l.id }

func (l *readerRef) close(context.Context) error { // nobody uses it any more
	err := l.reader.Close()
	l.s.logs.give(l.s, HandleBytes, readerBytes)
	return err
}

// mdcRef is an open metadata container.
type mdcRef struct {
	common
	id  layout.ObjectID
	mdc api.MDC
	s   *session // that its logs' pages are reserved for
}

func (m *mdcRef) object() layout.ObjectID { return m.id }

func (m *mdcRef) close(ctx context.Context) error { // nobody uses it any more
	err := m.mdc.Close(ctx)
	m.s.logs.give(m.s, HandleBytes, 2*appenderBytes)
	return err
}

// listRef is a list of objects that is being read.
type listRef struct {
	common
	turn turn // an iterator is not for concurrent use
	next func() (api.ObjectInfo, error, bool)
	stop func()
	open *atomic.Int32 // lists of the session
}

// maxLists is how many lists a session may read at one time: each has a piece
// of the pool's table at hand, and the names of all uncommitted objects.
const maxLists = 16

func (l *listRef) object() layout.ObjectID { return 0 }

func (l *listRef) close(context.Context) error { // nobody uses it any more
	l.stop()
	l.open.Add(-1)
	return nil
}

// closeTimeout bounds the close of what a client left open: it writes what was
// appended and not yet synced.
const closeTimeout = 30 * time.Second

// release closes what nobody will close any more: its handle was not given, or
// ended with the session.
func (s *session) release(v resource) {
	if !v.taken() {
		return
	}
	ctx := s.srv.hard
	if mayWait(v) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, closeTimeout)
		defer cancel()
	}
	if err := s.closeResource(ctx, v); err != nil && !errors.Is(err, api.EBADF) {
		s.srv.complaints.Warn("cannot close what a client left", s.who(), slog.Any("error", err))
	}
}

// mayWait says whether closing something may have to wait for its drive: what is
// open on a log waits for whoever else opens or closes that, and may write.
func mayWait(v resource) bool {
	switch v.(type) {
	case *appenderRef, *readerRef, *mdcRef:
		return true
	}
	return false
}

// closeResource closes what the caller has taken.
func (s *session) closeResource(ctx context.Context, v resource) error {
	err := v.close(ctx)
	s.forget(v)
	return err
}

// forget counts out what was closed, or ended otherwise.
func (s *session) forget(v resource) {
	p := v.home()
	p.handles.Add(-1)
	p.credits.forget(v)
	if c, ok := v.(child); ok {
		c.parent().children.Add(-1)
	}
	p.sweep(s.srv, v.object())
}

// child is a resource that was opened through a pool's handle.
type child interface {
	resource
	parent() *poolRef
}
