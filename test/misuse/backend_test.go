package misuse

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/mpool"
	"github.com/mpool-go/mpool/server"
)

// backend is an implementation of api.Pool.
type backend struct {
	name string
	open func(w *world) (end func())
}

const inProcessName = "inprocess"

var backends = []backend{{inProcessName, inProcess}, {"daemon", daemon}, {"socket", socketOnly}}

// each runs f on each implementation.
func each(t *testing.T, f func(t *testing.T, b backend)) {
	t.Helper()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f(t, b)
		})
	}
}

// world calls f with a new pool that has something in it.
func (b backend) world(t *testing.T, f func(w *world)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	w := &world{t: t, ctx: ctx, disks: newDisks()}
	end := b.open(w)
	defer end()
	defer func() {
		for _, u := range slices.Backward(w.undo) {
			u()
		}
	}()
	w.furnish()
	f(w)
}

func inProcess(w *world) func() {
	opt := w.disks.options()
	_, err := mpool.Create(w.ctx, "p", []string{"one"}, api.CreateOptions{}, opt)
	w.ok(err)
	p, err := mpool.Activate(w.ctx, "p", []string{"one"}, api.ActivateOptions{}, opt)
	w.ok(err)
	w.Pool, w.gone = p, []api.Code{api.EBADF}
	w.handles = func() uint32 { return 0 }
	w.other = func() api.Pool {
		_, err := mpool.Create(w.ctx, "q", []string{"two"}, api.CreateOptions{}, opt)
		w.ok(err)
		q, err := mpool.Activate(w.ctx, "q", []string{"two"}, api.ActivateOptions{}, opt)
		w.ok(err)
		w.later(func() { w.ok(q.Abandon(w.ctx)) })
		return q
	}
	w.deactivate = func() { w.ok(p.Abandon(w.ctx)) }
	return func() {
		if err := p.Abandon(w.ctx); err != nil && !errors.Is(err, api.EBADF) {
			w.t.Error(err)
		}
	}
}

// served is a running daemon.
type served struct {
	srv    *server.Server
	socket string
	done   chan error
}

func serve(t *testing.T, d *disks, o server.Options) *served {
	t.Helper()
	o.Backend = server.Engine{Options: d.options()}
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // other users come here, too
		t.Fatal(err)
	}
	s := &served{srv: srv, socket: filepath.Join(dir, "s"), done: make(chan error, 1)}
	l, err := server.Listen(s.socket, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- srv.Serve(l) }()
	return s
}

func (s *served) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := s.srv.Shutdown(ctx); err != nil && !errors.Is(err, api.EROFS) {
		t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-s.done:
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	case <-ctx.Done():
		t.Error("Serve does not return")
	}
}

func (s *served) dial(t *testing.T) *client.Conn {
	t.Helper()
	c, err := client.Dial(context.Background(), client.Options{Socket: s.socket, Reconnect: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// daemon serves with rings, and socketOnly without.
func daemon(w *world) func() { return daemonOf(w, server.Options{}) }

func socketOnly(w *world) func() { return daemonOf(w, server.Options{Loops: -1}) }

func daemonOf(w *world, o server.Options) func() {
	s := serve(w.t, w.disks, o)
	c := s.dial(w.t)
	_, err := c.CreatePool(w.ctx, "p", []string{"one"}, api.CreateOptions{})
	w.ok(err)
	w.Pool, err = c.OpenPool(w.ctx, "p")
	w.ok(err)
	w.gone, w.socket = []api.Code{api.EBADF, api.ECONNRESET, api.EUNKNOWN}, s.socket
	w.handles = func() uint32 {
		stat, err := c.Stat(w.ctx, "")
		if err != nil {
			return 0
		}
		return stat.Handles
	}
	w.other = func() api.Pool {
		_, err := c.CreatePool(w.ctx, "q", []string{"two"}, api.CreateOptions{})
		w.ok(err)
		q, err := c.OpenPool(w.ctx, "q")
		w.ok(err)
		return q
	}
	stop := sync.OnceFunc(func() { s.stop(w.t) })
	w.deactivate = stop
	return func() {
		if err := c.Close(); err != nil {
			w.t.Error(err)
		}
		stop()
	}
}
