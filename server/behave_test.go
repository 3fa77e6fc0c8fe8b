package server_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/server"
	"github.com/mpool-go/mpool/test/behave"
)

// socketed runs each case over a client, a socket, a server and a pool on a
// regular file. A restart is a restart of the server.
type socketed struct {
	dir   string
	loops int // as Options.Loops
}

func (b socketed) Run(t *testing.T, f func(e *behave.Env)) {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "case")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "drive")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	d := startDaemon(t, dir, b.loops)
	defer func() { d.stop(t) }()
	if _, err := d.conn.CreatePool(ctx, "p", []string{path}, api.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e := &behave.Env{T: t, Ctx: ctx}
	open := func() api.Pool {
		p, err := d.conn.OpenPool(ctx, "p")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	e.Pool = open()
	e.Reopen = func() api.Pool {
		d.stop(t)
		d = startDaemon(t, dir, b.loops)
		if _, err := d.conn.ActivatePool(ctx, "p", []string{path}, api.ActivateOptions{}); err != nil {
			t.Fatal(err)
		}
		return open()
	}
	f(e)
	if err := e.Pool.Close(); err != nil && !errors.Is(err, api.EBUSY) {
		t.Error(err)
	}
}

// daemon is a server with a client.
type daemon struct {
	srv  *server.Server
	conn *client.Conn
	done chan error
}

func startDaemon(t *testing.T, dir string, loops int) *daemon {
	t.Helper()
	srv, err := server.New(server.Options{Backend: server.Engine{}, Loops: loops})
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "sock")
	l, err := server.Listen(sock, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{srv: srv, done: make(chan error, 1)}
	go func() { d.done <- srv.Serve(l) }()
	if d.conn, err = client.Dial(context.Background(), client.Options{Socket: sock, Credits: credits()}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.conn.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := d.srv.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-d.done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

var withCredits = flag.Bool("server.credits", false, "the behaviour tests' connection takes credits itself and caches objects")

// credits returns the options of a connection that is to take credits itself.
func credits() *client.CreditOptions {
	if !*withCredits {
		return nil
	}
	return &client.CreditOptions{Cached: 8, Bytes: 1 << 20}
}

// The client over a daemon behaves as the engine in process does, with rings and
// without.
func TestBehaviour(t *testing.T) {
	dir, err := os.MkdirTemp(".", "behave") // on the disk: a temporary folder may have no direct I/O
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Run("rings", func(t *testing.T) { behave.Run(t, socketed{dir, 0}) })
	t.Run("socket", func(t *testing.T) { behave.Run(t, socketed{dir, -1}) })
}
