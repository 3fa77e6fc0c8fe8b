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
//
// When the reader of the output is gone (mpoolctl … | head -1) the program
// cleans up and ends without a word, with the exit code that shells give to a
// program ended by SIGPIPE, 141.
//
// # JSON
//
// The fields of every verb's result are in testdata/json.golden, which a test
// keeps. [jsonVersion], which mpoolctl version shows, is raised when a field is
// removed or changes its meaning; new fields come without that.
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
	// A write whose reader is gone is then an error like any other, and the verb
	// can clean up.
	signal.Ignore(syscall.SIGPIPE)
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
