// Command bench measures the engine against what else one could use on the same
// devices, and prints ratios. scripts/bench.sh builds it, gives it devices and
// removes them afterwards; docs/performance.md says what the rows mean.
//
//	bench run [flags] [ROW...]    runs rows and prints a table
//	bench work NAME [flags]       is one measured process, started by run
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	switch {
	case len(args) > 0 && args[0] == "run":
		return run(ctx, args[1:])
	case len(args) > 1 && args[0] == "work":
		return work(ctx, args[1], args[2:])
	default:
		return fmt.Errorf("usage: bench run [flags] [ROW...] | bench work NAME [flags]")
	}
}
