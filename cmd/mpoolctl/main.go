// Command mpoolctl manages pools and their objects through a running mpoold.
//
// # Shape
//
// Each verb is one file: an options struct, a constructor that declares the
// command, and a run function that talks to the daemon and returns one value.
// The same value is printed as a table or, with --json, as JSON; its field tags
// are the contract with scripts. Nothing but main touches the process: streams,
// environment, daemon and terminal come in through [app], so that the tests run
// every verb against a daemon of their own.
//
// # Exit codes
//
//	0  done
//	1  the operation failed: a sentence and a code on stderr, with --json also
//	   {"error":{"code",…}} on stdout
//	2  the command line is wrong
//	3  there is no daemon at the socket
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/mpool-go/mpool/api"
)

func main() {
	os.Exit(realMain())
}

// realMain is main with deferred calls that run before the process ends.
func realMain() int {
	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	// The first signal ends the context and verbs clean up; the second ends
	// the process.
	context.AfterFunc(signals, func() {
		stop()
		cancel(api.Errorf(api.ECANCELED, "", "interrupted"))
	})
	a := &app{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		dial:   dialDaemon,
		terminal: func(stream any) bool {
			f, ok := stream.(*os.File)
			return ok && term.IsTerminal(int(f.Fd()))
		},
	}
	return a.execute(ctx, os.Args[1:])
}
