package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

const usage = `mpoold owns drives and serves the pools on them to client processes.

Usage:
  mpoold [--config FILE] [--socket PATH] [--metrics ADDR] [--activate POOL@DEV[,DEV...]]...

Flags:
  --config FILE         read the configuration from a TOML file
  --socket PATH         listen here; else MPOOL_SOCKET, the file's "socket",
                        /run/mpool/mpoold.sock as root, or
                        $XDG_RUNTIME_DIR/mpool/mpoold.sock
  --metrics ADDR        serve Prometheus metrics here, on this host only:
                        127.0.0.1:9090, [::1]:9090, localhost:9090,
                        unix:/path or /path
  --pprof               serve Go's profiles there too, below /debug/pprof/
  --activate POOL@DEV[,DEV...]
                        activate a pool at the start, by name or UUID, from these
                        devices; without @DEV from all block devices; repeatable
  --print-config        print the effective configuration and exit
  --log-format FORMAT   text or json
  --log-level LEVEL     debug, info, warn or error
  --version             print the version and exit
  --help                print this and exit

It stays in the foreground, logs to stderr, and is ready when its socket accepts
(it also tells systemd). With a socket from systemd (LISTEN_FDS) it listens on
that one. SIGTERM or SIGINT: finish what is in flight, close the pools, exit 0; a
second one: exit at once. SIGHUP: read the configuration again; the log level, the
shutdown timeout, the owners and the limits of scopes change, the rest takes a
restart.

Exit: 0 stopped cleanly; 1 it failed; 2 the command line or configuration is wrong.
`

// flags is the command line.
type flags struct {
	config      string
	socket      string
	metrics     string
	pprof       bool
	activate    []activation
	printConfig bool
	logFormat   string
	logLevel    string
	version     bool
}

// errHelp is returned when all that was asked for is the usage.
var errHelp = errors.New("help")

func parseFlags(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("mpoold", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.config, "config", "", "")
	set.StringVar(&f.socket, "socket", "", "")
	set.StringVar(&f.metrics, "metrics", "", "")
	set.BoolVar(&f.pprof, "pprof", false, "")
	set.Func("activate", "", func(s string) error {
		a, err := parseActivation(s)
		f.activate = append(f.activate, a)
		return err
	})
	set.BoolVar(&f.printConfig, "print-config", false, "")
	set.StringVar(&f.logFormat, "log-format", "", "")
	set.StringVar(&f.logLevel, "log-level", "", "")
	set.BoolVar(&f.version, "version", false, "")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, errHelp
		}
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return f, nil
}

// parseActivation reads POOL@DEV[,DEV...] or POOL.
func parseActivation(s string) (activation, error) {
	name, devices, some := strings.Cut(s, "@")
	a := activation{Pool: name, Devices: []string{}}
	if some {
		a.Devices = strings.Split(devices, ",")
	}
	if slices.Contains(a.Devices, "") {
		return a, fmt.Errorf("%q has an empty device; want POOL@DEV[,DEV...]", s)
	}
	if name == "" {
		return a, fmt.Errorf("%q has no pool; want POOL@DEV[,DEV...]", s)
	}
	return a, nil
}

// effective returns the configuration that flags, environment and file make
// together.
func effective(f flags, defaultSocket func() (string, error), getenv func(string) string) (config, error) {
	c, err := load(f.config)
	if err != nil {
		return c, err
	}
	if env := getenv("MPOOL_SOCKET"); env != "" {
		c.Socket = env
	}
	if f.socket != "" {
		c.Socket = f.socket
	}
	if c.Socket == "" {
		if c.Socket, err = defaultSocket(); err != nil {
			return c, fmt.Errorf("%w; say --socket", err)
		}
	}
	if f.metrics != "" {
		c.Metrics = f.metrics
	}
	c.Pprof = c.Pprof || f.pprof
	if f.logFormat != "" {
		c.LogFormat = f.logFormat
	}
	if f.logLevel != "" {
		c.LogLevel = f.logLevel
	}
	for _, a := range f.activate {
		// A pool that the file names too is activated as the flag says.
		c.Activate = slices.DeleteFunc(c.Activate, func(b activation) bool { return b.Pool == a.Pool })
	}
	c.Activate = append(c.Activate, f.activate...)
	// What the file says is right by itself: this is the command line's.
	var errs []error
	for _, p := range c.problems() {
		errs = append(errs, errors.New(p.String()))
	}
	return c, errors.Join(errs...)
}
