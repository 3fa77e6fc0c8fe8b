package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// The exit codes.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNoDaemon = 3
	// exitPipe is what shells show of a program that SIGPIPE has ended: who read
	// the output is gone, and there is nobody to tell.
	exitPipe = 128 + int(syscall.SIGPIPE)
)

// daemon is what the verbs need of a connection to mpoold.
type daemon interface {
	api.Manager
	// OpenPool returns a handle on an active pool.
	OpenPool(ctx context.Context, name string) (api.Pool, error)
	// ScrubPool does one step of a scrub of an active pool.
	ScrubPool(ctx context.Context, name string, from api.ScrubCursor, bytes int64) (api.ScrubStep, error)
	// Stat returns the counters of a pool or, with "", of the daemon.
	Stat(ctx context.Context, pool string) (client.Stats, error)
	// Version says what the daemon is.
	Version(ctx context.Context) (client.Version, error)
	// EachClient iterates over the sessions of one process or, with 0, of all, in
	// the order of their numbers.
	EachClient(ctx context.Context, pid int32) iter.Seq2[client.ClientInfo, error]
	// Handles iterates over the handles of one pool ("": all) and one process
	// (0: all), in the order of their sessions' numbers.
	Handles(ctx context.Context, pool string, pid int32) iter.Seq2[client.HandleInfo, error]
	// Scopes iterates over the scope of a name or, with "", over all.
	Scopes(ctx context.Context, name string) iter.Seq2[client.ScopeInfo, error]
	// SetScope sets limits of a scope and returns it.
	SetScope(ctx context.Context, name string, limits []client.ScopeLimit) ([]client.ScopeInfo, error)
	// EachCredit iterates over the credits on the objects of a pool.
	EachCredit(ctx context.Context, pool string) iter.Seq2[client.CreditInfo, error]
	// Events iterates over what happened. A *client.EventGap is no end.
	Events(ctx context.Context, o client.EventOptions) iter.Seq2[client.Event, error]
	Close() error
}

// app is what a verb works with. It is made once per process (in tests: once
// per command line) and not shared.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// dial connects to the daemon. client.ErrNoDaemon means there is none.
	dial func(ctx context.Context, o client.Options) (daemon, error)
	// terminal says whether a stream is one.
	terminal func(stream any) bool
	// patience is how long the verb waits for a daemon that has gone; 0:
	// defaultPatience.
	patience time.Duration
	// dataWritten says that stdout has got data, which a JSON document of an
	// error must not be mixed with.
	dataWritten bool
	// credits is set by a verb that takes credits; nil: it does not.
	credits *client.CreditOptions
	// noHelp is the error of a request for help on what does not exist.
	noHelp error

	// The options that every verb takes.
	socket string
	json   bool
	quiet  bool
	yes    bool
}

// execute runs one command line, reports its error and returns the exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := newRootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.noHelp
	}
	if err == nil {
		return exitDone
	}
	path := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), root.Name()), " ")
	var failed *verbError
	if !errors.As(err, &failed) || errors.As(err, new(usageError)) {
		a.reportUsage(path, cmd, err)
		return exitUsage
	}
	if readerGone(err) {
		return exitPipe
	}
	if ctx.Err() != nil && codeOf(err) == api.ECANCELED {
		failed.err = context.Cause(ctx) // in which call it came does not matter
	}
	a.reportFailure(path, failed.err)
	if errors.Is(err, client.ErrNoDaemon) {
		return exitNoDaemon
	}
	return exitFailed
}

// verb makes a cobra run function. It marks the errors of run as the
// operation's own: what cobra finds wrong before is a matter of usage.
func (a *app) verb(run func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := run(cmd.Context(), args); err != nil {
			return &verbError{err: err}
		}
		return nil
	}
}

// withDaemon connects, calls f and closes the connection.
func (a *app) withDaemon(ctx context.Context, f func(d daemon) error) error {
	d, err := a.dial(ctx, client.Options{Socket: a.socket, Hello: helloPatience, Reconnect: cmp.Or(a.patience, defaultPatience), Credits: a.credits})
	if err != nil {
		return err
	}
	err = f(d)
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// withPool is withDaemon with a handle on a pool.
func (a *app) withPool(ctx context.Context, name string, f func(p api.Pool) error) error {
	return a.withDaemon(ctx, func(d daemon) error {
		p, err := d.OpenPool(ctx, name)
		if err != nil {
			return err
		}
		err = f(p)
		if closeErr := p.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}

// interactive says whether a person may be asked and shown progress.
func (a *app) interactive() bool {
	return a.terminal(a.stdin) && a.terminal(a.stderr)
}

// helloPatience is how long a verb waits for a daemon that has the socket and does
// not answer: long enough for one to end, and the next to begin, on a socket that is
// kept meanwhile.
const helloPatience = 20 * time.Second

// defaultPatience is how long a verb waits for a daemon that has gone to come
// back: a restart does not end what holds no object, and nobody waits long for a daemon
// that is dead.
const defaultPatience = 3 * time.Second

// timeoutForCleanup bounds what a verb does after its context has ended.
const timeoutForCleanup = 30 * time.Second
