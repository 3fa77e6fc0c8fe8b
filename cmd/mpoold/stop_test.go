package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/server"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

// stuck is a backend whose one pool does not close before it is let.
type stuck struct {
	server.Pool
	closing, let chan struct{}
}

func (s *stuck) Create(context.Context, string, []string, api.CreateOptions) (api.CreateResult, error) {
	return api.CreateResult{}, api.ENOTSUP
}

func (s *stuck) Activate(context.Context, string, []string, api.ActivateOptions, server.Watch) (server.Pool, error) {
	return s, nil
}

func (s *stuck) Name() string                               { return "stuck" }
func (s *stuck) Info(context.Context) (api.PoolInfo, error) { return api.PoolInfo{}, nil }

func (s *stuck) Close() error {
	close(s.closing)
	<-s.let
	return nil
}

// stopping is a daemon whose pool does not close.
func stopping(t *testing.T) (*daemon, chan os.Signal, *stuck, *server.Server) {
	t.Helper()
	s := &stuck{closing: make(chan struct{}), let: make(chan struct{})}
	srv, err := server.New(server.Options{Backend: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Activate(context.Background(), "stuck", nil); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	t.Cleanup(func() { close(s.let) })
	return &daemon{stderr: &testdaemon.Buffer{}, signals: signals, log: slog.New(slog.DiscardHandler), shutdown: time.Hour}, signals, s, srv
}

// A second signal ends the daemon although a pool does not close.
func TestSecondSignal(t *testing.T) {
	d, signals, s, srv := stopping(t)
	go func() {
		<-s.closing
		signals <- syscall.SIGTERM
	}()
	if err := d.stop(srv, nil); !errors.Is(err, errSecondSignal) {
		t.Errorf("stopped with %v", err)
	}
}

// Stopping takes no longer than it may.
func TestStopTimesOut(t *testing.T) {
	d, _, _, srv := stopping(t)
	d.shutdown = 50 * time.Millisecond
	if err := d.stop(srv, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopped with %v", err)
	}
}
