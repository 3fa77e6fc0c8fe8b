// Command bench measures the engine against what else one could use on the same
// devices, and prints ratios. scripts/bench.sh builds it, gives it devices and
// removes them afterwards; docs/performance.md says what the rows mean.
//
//	bench run [flags] [ROW...]    runs rows and prints a table
//	bench work NAME [flags]       is one measured process, started by run
//	bench tables FIGURES [PAGE]   writes a run's figures as Markdown, into a page
//
// Both sides of a comparison are processes of their own, run in turn (A B A B
// ...) on the same device or on an equal one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "run":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return run(ctx, args[1:])
	case len(args) > 1 && args[0] == "work":
		// A context that cannot end: the engine then works on the caller's
		// memory, where it would else have to copy.
		return work(context.Background(), args[1], args[2:])
	case len(args) > 0 && args[0] == "tables":
		return tables(args[1:])
	default:
		return fmt.Errorf("usage: bench run [flags] [ROW...] | bench work NAME [flags] | bench tables FIGURES [PAGE]")
	}
}
