package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/mpool-go/mpool/api"
)

// confirm asks before something is destroyed. It returns nil when the answer is
// yes, given on the terminal or by --yes; without a terminal and --yes that is a
// mistake in usage.
func (a *app) confirm(ctx context.Context, format string, args ...any) error {
	if a.yes {
		return nil
	}
	question := fmt.Sprintf(format, args...)
	if !a.interactive() {
		return usagef("would %s: give --yes to do it without being asked", question)
	}
	fmt.Fprintf(a.stderr, "%s? [y/N] ", strings.ToUpper(question[:1])+question[1:])
	// An answer that cannot be read is no.
	answer, _ := bufio.NewReader(interruptible(ctx, a.stdin)).ReadString('\n') //nolint:errcheck // see above
	if ctx.Err() != nil {
		fmt.Fprintln(a.stderr)
		return context.Cause(ctx)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return api.Errorf(api.ECANCELED, "", "not confirmed; nothing was done")
}
