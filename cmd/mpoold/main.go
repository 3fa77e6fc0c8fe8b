// Command mpoold is the daemon: it owns drives and serves the pools on them to
// client processes over a Unix socket.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/mpool-go/mpool/server"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	d := &daemon{stdout: os.Stdout, stderr: os.Stderr, signals: signals, getenv: os.Getenv}
	os.Exit(d.run(os.Args[1:]))
}

// Exit codes.
const (
	exitClean = 0
	exitFail  = 1
	exitUsage = 2
)

// daemon is one run of the command.
type daemon struct {
	stdout, stderr io.Writer
	signals        <-chan os.Signal
	getenv         func(string) string

	flags flags
	level slog.LevelVar
	log   *slog.Logger
}

// run does what the command line asks and returns the exit code.
func (d *daemon) run(args []string) int {
	f, err := parseFlags(args)
	if errors.Is(err, errHelp) {
		fmt.Fprint(d.stdout, usage)
		return exitClean
	}
	if err != nil {
		fmt.Fprintf(d.stderr, "mpoold: %v\nTry mpoold --help.\n", err)
		return exitUsage
	}
	if f.version {
		fmt.Fprintln(d.stdout, "mpoold", buildVersion())
		return exitClean
	}
	d.flags = f
	c, err := effective(f, server.DefaultSocket, d.getenv)
	if err != nil {
		fmt.Fprintf(d.stderr, "mpoold: %v\n", err)
		return exitUsage
	}
	if f.printConfig {
		if err := c.print(d.stdout); err != nil {
			fmt.Fprintf(d.stderr, "mpoold: %v\n", err)
			return exitFail
		}
		return exitClean
	}
	d.startLog(c)
	if err := d.serve(c); err != nil {
		d.log.Error("stopped", slog.Any("error", err))
		return exitFail
	}
	d.log.Info("stopped")
	return exitClean
}

func (d *daemon) startLog(c config) {
	l, err := c.level()
	if err != nil {
		panic("mpoold: a level that was valid is not: " + err.Error())
	}
	d.level.Set(l)
	o := &slog.HandlerOptions{Level: &d.level}
	if c.LogFormat == "json" {
		d.log = slog.New(slog.NewJSONHandler(d.stderr, o))
	} else {
		d.log = slog.New(slog.NewTextHandler(d.stderr, o))
	}
}

// serve is the daemon's life, from the claim on its socket to the last pool's
// close.
func (d *daemon) serve(c config) error {
	mode, err := c.mode()
	if err != nil {
		return err
	}
	claim, err := server.NewClaim(c.Socket)
	if err != nil {
		return err
	}
	srv, err := server.New(server.Options{
		Backend: server.Engine{}, Logger: d.log, Version: buildVersion(), Limits: c.Limits.server(),
	})
	if err != nil {
		return errors.Join(err, claim.Release())
	}
	if err := d.activate(srv, c.Activate); err != nil {
		return errors.Join(err, d.stop(srv, c), claim.Release())
	}
	l, err := claim.Listen(mode)
	if err != nil {
		return errors.Join(err, d.stop(srv, c), claim.Release())
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	d.log.Info("ready", slog.String("socket", c.Socket), slog.String("version", buildVersion()),
		slog.Int("pid", os.Getpid()))
	d.tell(sd.SdNotifyReady)
	for {
		select {
		case err := <-served:
			// It failed by itself.
			return errors.Join(err, d.stop(srv, c))
		case s := <-d.signals:
			if s == syscall.SIGHUP {
				d.reload()
				continue
			}
			d.log.Info("stopping", slog.String("signal", s.String()))
			d.tell(sd.SdNotifyStopping)
			if err := d.stop(srv, c); err != nil {
				return err
			}
			return <-served
		}
	}
}

// activate activates the pools of the configuration. A signal interrupts it.
func (d *daemon) activate(srv *server.Server, list []activation) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		for _, a := range list {
			if err := srv.Activate(ctx, a.Pool, a.Devices); err != nil {
				done <- fmt.Errorf("activate pool %s: %w", a.Pool, err)
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			return err
		case s := <-d.signals:
			if s != syscall.SIGHUP {
				cancel(fmt.Errorf("stopped by %v", s))
				return <-done
			}
		}
	}
}

// errSecondSignal ends the daemon at once.
var errSecondSignal = errors.New("stopped by a second signal")

// stop shuts the server down within the configured time, or until another
// signal says to be quick.
func (d *daemon) stop(srv *server.Server, c config) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Shutdown))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case s := <-d.signals:
			if s != syscall.SIGHUP {
				return errSecondSignal
			}
		}
	}
}

// reload reads the configuration again and takes from it what can change.
func (d *daemon) reload() {
	c, err := effective(d.flags, server.DefaultSocket, d.getenv)
	if err != nil {
		d.log.Error("configuration not read again", slog.Any("error", err))
		return
	}
	l, err := c.level()
	if err != nil {
		d.log.Error("configuration not read again", slog.Any("error", err))
		return
	}
	d.level.Set(l)
	d.log.Info("configuration read again", slog.String("log_level", l.String()))
}

// tell tells systemd, if it is there.
func (d *daemon) tell(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("cannot notify systemd", slog.Any("error", err))
	}
}

// buildVersion is the module's version and the commit it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			version += " " + s.Value[:12]
		}
	}
	return version
}
