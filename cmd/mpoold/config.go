package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/mpool-go/mpool/server"
)

// config is the daemon's configuration, as its file has it. What a flag or the
// environment says comes before what the file says.
type config struct {
	Socket     string       `toml:"socket" comment:"path of the socket that clients connect to"`
	SocketMode string       `toml:"socket_mode" comment:"permission bits of the socket, octal; who may do what is decided pool by pool"`
	LogFormat  string       `toml:"log_format" comment:"text or json"`
	LogLevel   string       `toml:"log_level" comment:"debug, info, warn or error"`
	Shutdown   duration     `toml:"shutdown_timeout" comment:"how long stopping may take"`
	Limits     limits       `toml:"limits" comment:"what clients can make the daemon hold"`
	Activate   []activation `toml:"activate" comment:"pools to activate at the start; no devices: look at all block devices"`
}

// limits is server.Limits in the file's words.
type limits struct {
	Sessions     int      `toml:"sessions" comment:"open at one time"`
	Requests     int      `toml:"requests" comment:"in flight per session"`
	Handles      int      `toml:"handles" comment:"per session"`
	Arenas       int      `toml:"arenas" comment:"shared memory files per session"`
	ArenaDefault int64    `toml:"arena_default" comment:"bytes of an arena of no given size"`
	ArenaSession int64    `toml:"arena_session" comment:"bytes of one session's arenas"`
	ArenaTotal   int64    `toml:"arena_total" comment:"bytes of all sessions' arenas"`
	HelloTimeout duration `toml:"hello_timeout" comment:"from connect to hello"`
}

func (l limits) server() server.Limits {
	return server.Limits{
		Sessions: l.Sessions, Requests: l.Requests, Handles: l.Handles, Arenas: l.Arenas,
		ArenaDefault: l.ArenaDefault, ArenaSession: l.ArenaSession, ArenaTotal: l.ArenaTotal,
		HelloTimeout: time.Duration(l.HelloTimeout),
	}
}

// activation names a pool and its devices.
type activation struct {
	Pool    string   `toml:"pool" comment:"name or UUID"`
	Devices []string `toml:"devices"`
}

// duration is a time.Duration that reads as "5s".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// defaults returns the configuration of no file. The socket is "": it depends
// on who asks.
func defaults() config {
	l := server.DefaultLimits()
	return config{
		SocketMode: "0666", LogFormat: "text", LogLevel: "info", Shutdown: duration(9 * time.Second),
		Limits: limits{
			Sessions: l.Sessions, Requests: l.Requests, Handles: l.Handles, Arenas: l.Arenas,
			ArenaDefault: l.ArenaDefault, ArenaSession: l.ArenaSession, ArenaTotal: l.ArenaTotal,
			HelloTimeout: duration(l.HelloTimeout),
		},
	}
}

// load reads a configuration file over the defaults; "" is no file. A key that
// is not known is an error.
func load(path string) (config, error) {
	c := defaults()
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&c)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var keys []string
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			keys = append(keys, fmt.Sprintf("%s (line %d)", strings.Join(e.Key(), "."), line))
		}
		return c, fmt.Errorf("read configuration %s: unknown keys: %s", path, strings.Join(keys, ", "))
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return c, fmt.Errorf("read configuration %s: line %d, column %d: %w", path, line, column, err)
	case err != nil:
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

// validate says what is wrong with the configuration as a whole.
func (c *config) validate() error {
	if _, err := c.mode(); err != nil {
		return err
	}
	if _, err := c.level(); err != nil {
		return err
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		return fmt.Errorf("log_format is %q: want text or json", c.LogFormat)
	}
	if d := time.Duration(c.Shutdown); d < time.Millisecond || d > time.Hour {
		return fmt.Errorf("shutdown_timeout is %v: want 1ms to 1h", d)
	}
	for _, a := range c.Activate {
		if a.Pool == "" {
			return errors.New("activate: a pool without a name")
		}
	}
	return c.Limits.server().Validate()
}

// mode returns the socket's permission bits.
func (c *config) mode() (fs.FileMode, error) {
	v, err := strconv.ParseUint(c.SocketMode, 8, 32)
	if err != nil || v > 0o777 {
		return 0, fmt.Errorf("socket_mode is %q: want octal permission bits, such as 0666", c.SocketMode)
	}
	return fs.FileMode(v), nil
}

func (c *config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return 0, fmt.Errorf("log_level is %q: want debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

// print writes the configuration as a file would have it.
func (c *config) print(w io.Writer) error {
	return toml.NewEncoder(w).Encode(c)
}
