package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout bounds what a shell waits for names of pools.
const completionTimeout = time.Second

// completePools makes the shell complete the first argument of every verb that
// takes an active pool there with the pools' names.
func completePools(a *app, root *cobra.Command) {
	for _, noun := range root.Commands() {
		for _, verb := range noun.Commands() {
			f := strings.Fields(verb.Use)
			if len(f) > 1 && (f[1] == "POOL" || noun.Name() == "pool" && takesActivePool(f[1], verb.Name())) {
				verb.ValidArgsFunction = a.completePool
			}
		}
	}
}

func takesActivePool(argument, verb string) bool {
	return (strings.HasPrefix(argument, "NAME") || argument == "OLD") && verb != "create" && verb != "activate"
}

// completePool gives the names of pools for the first argument; files for the
// others, of which some are.
func (a *app) completePool(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	var names []string
	err := a.withDaemon(ctx, func(d daemon) error {
		pools, err := d.Pools(ctx)
		for _, p := range pools {
			names = append(names, p.Name)
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
