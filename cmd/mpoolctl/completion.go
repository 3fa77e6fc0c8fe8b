package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
)

func newCompletion(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete the command line of mpoolctl",
		Long: `Print a script that makes a shell complete verbs, options, names of active pools,
roots, owners and processes.`,
		Example: `  source <(mpoolctl completion bash)
  mpoolctl completion zsh >"${fpath[1]}/_mpoolctl"
  mpoolctl completion fish >~/.config/fish/completions/mpoolctl.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.ExactArgs(1),
	}
	c.RunE = a.verb(func(_ context.Context, args []string) error {
		switch args[0] {
		case "bash":
			return c.Root().GenBashCompletionV2(a.stdout, true)
		case "zsh":
			return c.Root().GenZshCompletion(a.stdout)
		case "fish":
			return c.Root().GenFishCompletion(a.stdout, true)
		}
		return usagef("shell %q: want bash, zsh or fish", args[0])
	})
	return c
}

// completionTimeout bounds what a shell waits for names.
const completionTimeout = time.Second

// completer gives what may stand in one place of a command line. args are those
// before it.
type completer func(ctx context.Context, d daemon, args []string) ([]string, error)

// complete makes the shell complete the arguments and options of every verb, as
// far as their names in the usage say what they are.
func complete(a *app, root *cobra.Command) {
	for _, noun := range root.Commands() {
		verbs := noun.Commands()
		if len(verbs) == 0 {
			verbs = []*cobra.Command{noun}
		}
		for _, verb := range verbs {
			var places []completer
			for _, word := range strings.Fields(verb.Use)[1:] {
				places = append(places, completerOf(noun.Name(), verb.Name(), strings.Trim(word, "[]")))
			}
			if len(places) > 0 && verb.ValidArgs == nil {
				verb.ValidArgsFunction = a.completeArgs(places, strings.HasSuffix(strings.TrimRight(verb.Use, "]"), "..."))
			}
			a.completeFlags(verb)
		}
	}
}

// completerOf gives what completes an argument that the usage names so; nil:
// files.
func completerOf(noun, verb, word string) completer {
	switch name, _, _ := strings.Cut(strings.TrimSuffix(word, "..."), "|"); {
	case noun == "scope" && name == "NAME":
		return completeScopes
	case name == "KIND=VALUE":
		return completeScopeKinds
	case name == "POOL", name == "OLD",
		noun == "pool" && name == "NAME" && verb != "create" && verb != "activate":
		return completePools
	case name == "ID" && noun == "credit":
		return completeRoots("@", 0)
	case name == "ID" && noun == "mlog":
		return completeRoots("@", layout.KindMlog)
	case name == "ID":
		return completeRoots("@", layout.KindMblock)
	case noun == "root" && name == "NAME":
		return completeRoots("", 0)
	case name == "PID":
		return completePIDs
	case name == "KEY=VALUE":
		return completeProperties
	case name == "ROW":
		return completeRows
	}
	return nil
}

// completeArgs completes arguments by their places. With repeat the last place
// is that of all further ones.
func (a *app) completeArgs(places []completer, repeat bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if i >= len(places) && repeat {
			i = len(places) - 1
		}
		if i >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if places[i] == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.complete(cmd, args, places[i])
	}
}

// complete asks the daemon what is there.
func (a *app) complete(cmd *cobra.Command, args []string, c completer) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	var names []string
	err := a.withDaemon(ctx, func(d daemon) (err error) {
		names, err = c(ctx, d, args)
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if len(names) > 0 && strings.HasSuffix(names[0], "=") {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return names, directive
}

// completeFlags completes the values of a verb's options.
func (a *app) completeFlags(verb *cobra.Command) {
	fixed := map[string][]string{
		"class": {api.ClassCapacity.String(), api.ClassStaging.String()},
		"state": {api.StateUncommitted.String(), api.StateCommitted.String(), api.StateDeleting.String()},
	}
	if verb.Name() == "acquire" {
		fixed["mode"] = creditModeNames()
	}
	asked := map[string]completer{"owner": completeOwners, "pid": completePIDs}
	for name, values := range fixed {
		if verb.Flags().Lookup(name) != nil {
			mustComplete(verb.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
		}
	}
	for name, c := range asked {
		if verb.Flags().Lookup(name) == nil {
			continue
		}
		mustComplete(verb.RegisterFlagCompletionFunc(name,
			func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return a.complete(cmd, args, c)
			}))
	}
}

// mustComplete panics when a flag that is there has no completion: the command
// tree is wrong.
func mustComplete(err error) {
	if err != nil {
		panic("mpoolctl: " + err.Error())
	}
}

func completePools(ctx context.Context, d daemon, _ []string) ([]string, error) {
	pools, err := d.Pools(ctx)
	names := make([]string, 0, len(pools))
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return names, err
}

// completeRoots gives the names of a pool's roots, with what stands before them;
// kind 0: of all, else of those that lead to an object of a kind.
func completeRoots(prefix string, kind layout.Kind) completer {
	return func(ctx context.Context, d daemon, args []string) ([]string, error) {
		var names []string
		err := inPool(ctx, d, args, func(p api.Pool) error {
			roots, err := p.Roots(ctx)
			for _, r := range roots {
				if kind == 0 || r.ID.Kind() == kind {
					names = append(names, prefix+r.Name)
				}
			}
			return err
		})
		return names, err
	}
}

func completeOwners(ctx context.Context, d daemon, args []string) ([]string, error) {
	var names []string
	err := inPool(ctx, d, args, func(p api.Pool) error {
		list, err := p.Owners(ctx)
		for _, o := range list {
			names = append(names, o.Name)
		}
		return err
	})
	return names, err
}

func completePIDs(ctx context.Context, d daemon, _ []string) ([]string, error) {
	seen := make(map[int32]bool)
	var names []string
	for c, err := range d.EachClient(ctx, 0) {
		if err != nil {
			return names, err
		}
		if !seen[c.PID] {
			seen[c.PID] = true
			names = append(names, fmt.Sprintf("%s\t%s", strconv.Itoa(int(c.PID)), cell(c.Comm)))
		}
	}
	return names, nil
}

func completeProperties(context.Context, daemon, []string) ([]string, error) {
	var keys []string
	for _, p := range poolProperties {
		keys = append(keys, p+"=")
	}
	return keys, nil
}

// completeScopes gives the names of scopes that are open, and of those that stand for
// several.
func completeScopes(ctx context.Context, d daemon, _ []string) ([]string, error) {
	names := []string{"client", "service", "session", "user"}
	for e, err := range d.Scopes(ctx, "") {
		if err != nil {
			return names, err
		}
		if !slices.Contains(names, e.Scope) {
			names = append(names, e.Scope)
		}
	}
	return names, nil
}

func completeScopeKinds(context.Context, daemon, []string) ([]string, error) {
	var keys []string
	for _, k := range scopeKinds {
		keys = append(keys, k+"=")
	}
	return keys, nil
}

func completeRows(context.Context, daemon, []string) ([]string, error) {
	return slices.Sorted(maps.Keys(benchRows())), nil
}

// inPool calls f with the pool that is the first argument, if there is one yet.
func inPool(ctx context.Context, d daemon, args []string, f func(p api.Pool) error) error {
	if len(args) == 0 {
		return nil
	}
	p, err := d.OpenPool(ctx, args[0])
	if err != nil {
		return err
	}
	err = f(p)
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	return err
}
