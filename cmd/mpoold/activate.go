package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/server"
)

// activating is the activation of the configured pools, of all at one time: a
// drive that stalls holds up its own pool.
type activating struct {
	results  chan activated // one per pool
	required int            // required pools that are not active yet
	optional int            // optional ones that have not come to an end yet
	cancel   context.CancelCauseFunc
	all      sync.WaitGroup
}

// activated is what became of one.
type activated struct {
	activation
	err error
}

// startActivation begins to activate pools. stop ends it.
func startActivation(srv *server.Server, list []activation) *activating {
	ctx, cancel := context.WithCancelCause(context.Background())
	a := &activating{results: make(chan activated, len(list)), cancel: cancel}
	for _, pool := range list {
		if pool.Optional {
			a.optional++
		} else {
			a.required++
		}
		a.all.Go(func() {
			a.results <- activated{pool, srv.Activate(ctx, pool.Pool, absolute(pool.Devices))}
		})
	}
	return a
}

// absolute returns paths that mean the same in any directory: clients are shown
// them, and pool check is told them.
func absolute(paths []string) []string {
	list := make([]string, len(paths))
	for i, p := range paths {
		list[i] = p
		if abs, err := filepath.Abs(p); err == nil {
			list[i] = abs
		}
	}
	return list
}

// take counts a result in and logs a failure. It returns whether a pool has
// failed that is required.
func (a *activating) take(r activated, log *slog.Logger) (failed bool) {
	if r.Optional {
		a.optional--
	} else {
		a.required--
	}
	if r.err == nil {
		return false
	}
	log.Error("pool not activated", slog.String("pool", r.Pool), slog.Bool("optional", r.Optional), slog.Any("error", r.err))
	return !r.Optional
}

// stop cancels what is under way and waits for it, but not for long.
func (a *activating) stop(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.cancel(errStopped)
	done := make(chan struct{})
	go func() {
		a.all.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// optionalPatience is how long the daemon waits, when all required pools are
// active, for the optional ones before it is ready without them. They may still
// come.
const optionalPatience = 10 * time.Second

// failurePatience is how long it waits, when a required pool has failed, for what
// else may fail: a busy drive is tried for 5 s.
const failurePatience = 6 * time.Second

// errStopped says that a signal ended the daemon's start.
var errStopped = errors.New("stopped by a signal")

// activate waits until the pools are active that must be. It returns errStopped
// if a signal says to stop.
func (d *daemon) activate(a *activating) error {
	var failed []string
	var patience <-chan time.Time
	wait := func(t time.Duration) {
		if patience == nil {
			patience = time.After(t)
		}
	}
	for a.required > 0 || a.optional > 0 && len(failed) == 0 {
		if a.required == 0 {
			wait(optionalPatience)
		}
		select {
		case r := <-a.results:
			if a.take(r, d.log) {
				failed = append(failed, r.Pool)
				patience = nil
				wait(failurePatience)
			}
		case s := <-d.signals:
			if d.ends(s) {
				return errStopped
			}
		case <-patience:
			if len(failed) > 0 {
				return notActivated(failed)
			}
			d.log.Warn("ready without optional pools that are still being activated", slog.Int("pools", a.optional))
			return nil
		}
	}
	return notActivated(failed)
}

func notActivated(failed []string) error {
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("pools not activated: %s", strings.Join(failed, ", "))
}

// ends says whether a signal ends the daemon. The others have no effect before
// it is ready and while it stops.
func (d *daemon) ends(s os.Signal) bool {
	if s == syscall.SIGHUP {
		d.log.Info("configuration not read again: the daemon is starting or stopping")
		return false
	}
	d.log.Info("stopping", slog.String("signal", s.String()))
	return true
}
