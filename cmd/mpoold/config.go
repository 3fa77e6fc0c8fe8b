package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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
	Socket     string       `toml:"socket" comment:"path of the socket that clients connect to; none with socket activation"`
	SocketMode string       `toml:"socket_mode" comment:"permission bits of the socket, octal; who may do what is decided pool by pool"`
	LogFormat  string       `toml:"log_format" comment:"text or json"`
	LogLevel   string       `toml:"log_level" comment:"debug, info, warn or error"`
	Shutdown   duration     `toml:"shutdown_timeout" comment:"how long stopping may take"`
	Metrics    string       `toml:"metrics" comment:"where Prometheus reads metrics, on this host only: 127.0.0.1:9090, [::1]:9090, localhost:9090,\nunix:/path or /path; empty: nowhere"`
	Pprof      bool         `toml:"pprof" comment:"Go's profiles at the same place, below /debug/pprof/"`
	Limits     limits       `toml:"limits" comment:"what clients can make the daemon hold"`
	Scopes     scopes       `toml:"scopes" comment:"what may be used now, by scope: system, transient, service, service:POOL, user, user:UID, client,\nclient:UID/PID, session; by kind: memory, inbound, connections, descriptors, tasks_high, tasks_medium,\ntasks_low, tasks; a number, a size such as '64MiB', a share of the machine such as '5%' (of memory and\ndescriptors), 'unlimited' or 'block'"`
	Engine     engine       `toml:"engine" comment:"how every pool does its I/O"`
	Deaths     deaths       `toml:"deaths" comment:"how clients' deaths are noticed, beside the ends of their pidfds and sockets"`
	Credits    credits      `toml:"credits" comment:"who may do what to an object while others use it"`
	Activate   []activation `toml:"activate" comment:"pools to activate at the start"`
	Owners     []ownerRule  `toml:"owner" comment:"which users act as which owners within a pool"`
}

// scopes are limits by the names of scopes and kinds: numbers or strings.
type scopes map[string]map[string]any

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

// engine is server.EngineOptions in the file's words.
type engine struct {
	IO            string `toml:"io" comment:"auto (io_uring, or pread where the kernel refuses it), io_uring or pread"`
	QueueDepth    int    `toml:"queue_depth" comment:"operations that a drive has under way at most"`
	Workers       int    `toml:"workers" comment:"threads that a drive blocks at most"`
	SumCacheBytes int64  `toml:"sum_cache_bytes" comment:"of each pool's cache of checksum pages"`
	NoDiscard     bool   `toml:"no_discard" comment:"leave freed zones as they are"`
	Loops         int    `toml:"loops" comment:"threads that serve clients' rings, started as they are needed; 0: half as many as processors, up to 4;\n-1: clients have no rings"`
}

func (e engine) server() server.EngineOptions {
	return server.EngineOptions{
		IO: e.IO, QueueDepth: e.QueueDepth, Workers: e.Workers,
		SumCacheBytes: e.SumCacheBytes, NoDiscard: e.NoDiscard,
	}
}

// deaths is how clients' deaths are noticed.
type deaths struct {
	EBPF string `toml:"ebpf" comment:"the kernel's exit tracepoint, which tells before the memory of the dead is torn down:\nauto (if the daemon may), off, or require (or do not start)"`
}

// credits are of all pools.
type credits struct {
	CallBack duration `toml:"call_back" comment:"how long who has a credit that others wait for may hold on before it is taken; 0s: for ever"`
}

// server returns what [server.Options] calls it.
func (c credits) server() time.Duration {
	if c.CallBack == 0 {
		return -1
	}
	return time.Duration(c.CallBack)
}

// activation names a pool and its devices.
type activation struct {
	Pool     string   `toml:"pool" comment:"name or UUID"`
	Devices  []string `toml:"devices" comment:"none: look at all block devices of the host"`
	Optional bool     `toml:"optional" comment:"go on without it if it cannot be activated"`
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
	e := server.DefaultEngineOptions()
	return config{
		SocketMode: "0666", LogFormat: "text", LogLevel: "info", Shutdown: duration(8 * time.Second),
		Limits: limits{
			Sessions: l.Sessions, Requests: l.Requests, Handles: l.Handles, Arenas: l.Arenas,
			ArenaDefault: l.ArenaDefault, ArenaSession: l.ArenaSession, ArenaTotal: l.ArenaTotal,
			HelloTimeout: duration(l.HelloTimeout),
		},
		Scopes: scopes{},
		Engine: engine{
			IO: e.IO, QueueDepth: e.QueueDepth, Workers: e.Workers,
			SumCacheBytes: e.SumCacheBytes, NoDiscard: e.NoDiscard,
		},
		Deaths:   deaths{EBPF: ebpfAuto},
		Credits:  credits{CallBack: duration(server.DefaultCallBack)},
		Activate: []activation{}, Owners: []ownerRule{},
	}
}

// problem is what is wrong with the value of a key.
type problem struct {
	key  string // such as "limits.requests" or "activate[1].pool", from 0
	text string // "is 0: want 1 to 4096"
}

func (p problem) String() string { return p.key + " " + p.text }

// problems says what is wrong with the configuration.
func (c *config) problems() []problem {
	var list []problem
	add := func(key, format string, args ...any) {
		list = append(list, problem{key, fmt.Sprintf(format, args...)})
	}
	if _, err := c.mode(); err != nil {
		add("socket_mode", "%v", err)
	}
	if _, err := c.level(); err != nil {
		add("log_level", "%v", err)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		add("log_format", "is %q: want text or json", c.LogFormat)
	}
	if d := time.Duration(c.Shutdown); d < time.Millisecond || d > time.Hour {
		add("shutdown_timeout", "is %v: want 1ms to 1h", d)
	}
	if _, err := parseEndpoint(c.Metrics); err != nil {
		add("metrics", "%v", err)
	} else if c.Pprof && c.Metrics == "" {
		add("pprof", "is true, but there is no metrics address to serve profiles at")
	}
	if d := time.Duration(c.Credits.CallBack); d < 0 || d > server.MaxCallBack {
		add("credits.call_back", "is %v: want 0s to %v", d, server.MaxCallBack)
	}
	if !slices.Contains([]string{ebpfAuto, ebpfOff, ebpfRequire}, c.Deaths.EBPF) {
		add("deaths.ebpf", "is %q: want auto, off or require", c.Deaths.EBPF)
	}
	limitProblem := func(section string, err error) {
		if e, ok := errors.AsType[*server.LimitError](err); ok {
			add(section+"."+e.Name, "%s", e.Detail)
		} else if err != nil {
			add(section, "%v", err)
		}
	}
	limitProblem("limits", c.Limits.server().Validate())
	list = append(list, scopeProblems(c.Scopes)...)
	limitProblem("engine", c.Engine.server().Validate())
	if n := c.Engine.Loops; n < -1 || n > server.MaxLoops {
		add("engine.loops", "is %d: want -1 to %d", n, server.MaxLoops)
	}
	list = append(list, activateProblems(c.Activate)...)
	return append(list, ownerProblems(c.Owners)...)
}

// scopeProblems says what is wrong with limits of scopes.
func scopeProblems(s scopes) []problem {
	_, err := server.ParseScopeLimits(s)
	var list []problem
	joined, _ := err.(interface{ Unwrap() []error })
	if err != nil && joined == nil {
		return []problem{{"scopes", err.Error()}}
	}
	if joined == nil {
		return nil
	}
	for _, err := range joined.Unwrap() {
		if e, ok := errors.AsType[*server.ScopeFileError](err); ok {
			list = append(list, problem{"scopes." + e.Scope + "." + e.Kind, e.Detail})
		}
	}
	return list
}

func activateProblems(list []activation) []problem {
	var problems []problem
	seen := make(map[string]bool)
	for i, a := range list {
		key := fmt.Sprintf("activate[%d]", i)
		switch {
		case a.Pool == "":
			problems = append(problems, problem{key + ".pool", "is empty: want a pool's name or UUID"})
		case seen[a.Pool]:
			problems = append(problems, problem{key + ".pool", fmt.Sprintf("is %q a second time", a.Pool)})
		}
		if slices.Contains(a.Devices, "") {
			problems = append(problems, problem{key + ".devices", "has an empty path"})
		}
		seen[a.Pool] = true
	}
	return problems
}

// mode returns the socket's permission bits.
func (c *config) mode() (fs.FileMode, error) {
	v, err := strconv.ParseUint(c.SocketMode, 8, 32)
	if err != nil || v > 0o777 {
		return 0, fmt.Errorf("is %q: want octal permission bits, such as 0666", c.SocketMode)
	}
	return fs.FileMode(v), nil
}

func (c *config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return 0, fmt.Errorf("is %q: want debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

// print writes the configuration as a file would have it, and what limits that makes, as
// comments.
func (c *config) print(w io.Writer) error {
	if err := toml.NewEncoder(w).Encode(c); err != nil {
		return err
	}
	s, err := newScopes(c, nil, true)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("\n# Limits of scopes in effect, and where each comes from; there are no others:\n")
	for _, e := range s.Effective() {
		fmt.Fprintf(&b, "#   %s %v = %s (%s)\n", e.Scope, e.Kind, e.Limit, e.Origin)
	}
	_, err = io.WriteString(w, b.String())
	return err
}
