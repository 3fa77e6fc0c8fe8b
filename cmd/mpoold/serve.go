package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/mpool-go/mpool/server"
)

// serve is the daemon's life, from the claim on its socket to the last pool's
// close.
func (d *daemon) serve(c *config) (err error) {
	in, err := d.newEntrance(c)
	if err != nil {
		return err
	}
	// Last of all: the next daemon does not begin before this one has ended.
	defer func() { err = errors.Join(err, in.release()) }()
	deaths, err := watchDeaths(c, d.log)
	if err != nil {
		return err
	}
	defer deaths.close()
	srv, err := d.newServer(c, &deaths)
	if err != nil {
		return err
	}
	metrics, err := d.serveMetrics(c, srv, &deaths)
	if err != nil {
		return errors.Join(err, d.stop(srv, nil))
	}
	if metrics != nil {
		defer metrics.close()
	}
	pools := startActivation(srv, c.Activate)
	err = d.activate(pools)
	if errors.Is(err, errStopped) {
		return d.stopAsked(srv, pools)
	}
	if err != nil {
		in.turnAway()
		return errors.Join(err, d.stop(srv, pools))
	}
	l, err := in.listen(c)
	if err != nil {
		return errors.Join(err, d.stop(srv, pools))
	}
	deaths.tell(d.log)
	warnOfDescriptors(c, d.log)
	defer d.addProcessors(c)()
	return d.serveOn(srv, l, pools)
}

// addProcessors gives Go's scheduler one processor more for each I/O loop, unless
// GOMAXPROCS says how many there are to be, and returns what takes them back. A
// loop, and a writer that flushes, keep theirs while they sleep in the kernel. On a
// machine with few, a goroutine that they have woken would have to wait until the
// scheduler's monitor looks and takes one from them: 20 to 100 µs, several times for
// each append, and as much processor time. With one to spare it runs at once.
//
// A number that is set ends Go's own following of the limit of the control group, until
// the number is taken back: a limit that changes meanwhile is not followed. It is called
// after the server was made, which counts the processors itself.
func (d *daemon) addProcessors(c *config) (restore func()) {
	if d.getenv("GOMAXPROCS") != "" || c.Engine.Loops < 0 {
		return func() {}
	}
	runtime.GOMAXPROCS(processors(runtime.GOMAXPROCS(0), c.Engine.Loops))
	return runtime.SetDefaultGOMAXPROCS
}

// processors returns how many processors Go's scheduler gets where there are n, for so
// many I/O loops (0: the default): at most twice as many, as no more than n run at a time.
func processors(n, loops int) int {
	if loops == 0 {
		loops = server.DefaultLoops()
	}
	return n + min(loops, n)
}

func (d *daemon) newServer(c *config, deaths *deathWatch) (*server.Server, error) {
	backend, err := server.NewEngine(c.Engine.server())
	if err != nil {
		return nil, err
	}
	rules, err := ownerRules(c.Owners)
	if err != nil {
		return nil, err
	}
	scopes, err := newScopes(c, d.log, d.getenv("GOMEMLIMIT") != "")
	if err != nil {
		return nil, err
	}
	o := server.Options{
		Scopes: scopes, Backend: backend, Logger: d.log, Version: buildVersion(), Limits: c.Limits.server(), Owners: rules,
		Loops: c.Engine.Loops, CallBack: c.Credits.server(),
	}
	deaths.use(&o)
	return server.New(o)
}

// serveMetrics starts the metrics endpoint, if there is to be one.
func (d *daemon) serveMetrics(c *config, srv *server.Server, deaths *deathWatch) (*endpoint, error) {
	a, err := parseEndpoint(c.Metrics)
	if err != nil {
		return nil, err
	}
	if a.none() {
		return nil, nil //nolint:nilnil // none is wanted
	}
	reg := newRegistry(srv.Snapshot, func() daemonState {
		return daemonState{
			exits:   deaths.stats(),
			dropped: d.lines.dropped.Load(), reloadOK: d.reloadOK.Load(), reloaded: time.UnixMilli(d.reloaded.Load()),
		}
	})
	e, err := startEndpoint(a, c.Pprof, reg, d.log)
	if err != nil {
		return nil, err
	}
	d.log.Info("metrics are served", slog.String("address", e.address()), slog.Bool("pprof", c.Pprof))
	return e, nil
}

// serveOn serves sessions until a signal says to stop.
func (d *daemon) serveOn(srv *server.Server, l *server.Listener, pools *activating) error {
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	d.log.Info("ready", slog.String("socket", l.Path()), slog.String("version", buildVersion()),
		slog.Int("pid", os.Getpid()))
	d.tellReady(srv)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.watchdog(ctx, srv)
	for {
		select {
		case err := <-served:
			// It failed by itself.
			return errors.Join(err, d.stop(srv, pools))
		case r := <-pools.results:
			// An optional pool that took its time.
			pools.take(r, d.log)
			d.tellReady(srv)
		case s := <-d.signals:
			if s == syscall.SIGHUP {
				d.reload(srv)
				continue
			}
			d.log.Info("stopping", slog.String("signal", s.String()))
			if err := d.stopAsked(srv, pools); err != nil {
				return err
			}
			return <-served
		}
	}
}

// errSecondSignal ends the daemon at once.
var errSecondSignal = errors.New("stopped by a second signal")

// stopAsked stops because somebody asked for it. That a drive or a client does
// not let go in time is no failure of the daemon's: it is told, and the next
// activation recovers.
func (d *daemon) stopAsked(srv *server.Server, pools *activating) error {
	err := d.stop(srv, pools)
	if err == nil || errors.Is(err, errSecondSignal) {
		return err
	}
	d.log.Error("not everything was closed cleanly; the next activation recovers", slog.Any("error", err))
	return nil
}

// stop ends what is being activated and shuts the server down, within the
// configured time, or until another signal says to be quick.
func (d *daemon) stop(srv *server.Server, pools *activating) error {
	d.tell(sd.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.Background(), d.shutdown)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		if pools != nil {
			pools.stop(ctx, d.shutdown/4)
		}
		done <- srv.Shutdown(ctx)
	}()
	for {
		select {
		case err := <-done:
			return err
		case s := <-d.signals:
			if d.ends(s) {
				return errSecondSignal
			}
		}
	}
}
