// Command mpoold is the daemon: it owns drives and serves the pools on them to
// client processes over a Unix socket.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	sockets "github.com/coreos/go-systemd/v22/activation"

	"github.com/mpool-go/mpool/server"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go away
	d := &daemon{
		stdout: os.Stdout, stderr: os.Stderr, signals: signals, getenv: os.Getenv,
		inherited: sockets.Files(true),
	}
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
	inherited      []*os.File // sockets that the process was started with

	flags    flags
	started  config        // the configuration that it was started with
	shutdown time.Duration // how long stopping may take
	level    slog.LevelVar
	lines    *logQueue
	log      *slog.Logger

	reloadOK atomic.Bool
	reloaded atomic.Int64 // milliseconds since 1970
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
	c, err := d.configure()
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
	defer d.lines.close(logPatience)
	d.started, d.shutdown = c, time.Duration(c.Shutdown)
	d.reloadOK.Store(true)
	d.reloaded.Store(time.Now().UnixMilli())
	if err := d.serve(&c); err != nil {
		d.log.Error("stopped", slog.Any("error", err))
		return exitFail
	}
	d.log.Info("stopped")
	return exitClean
}

// configure returns the configuration that the command line asks for.
func (d *daemon) configure() (config, error) {
	socket := server.DefaultSocket
	if len(d.inherited) > 0 {
		socket = func() (string, error) { return "", nil } // none is needed
	}
	return effective(d.flags, socket, d.getenv)
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
