package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newRootCommand declares the whole command line.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "mpoolctl",
		Short: "Manage storage pools and their objects",
		Long: `mpoolctl manages the pools of a running mpoold and what is in them: mblocks
(write-once extents), mlogs (append-only logs) and named roots.

An object id is up to 16 hex digits, with or without 0x; @NAME stands for the
object that the root NAME names. A size is a number of bytes or has a unit:
KiB MiB GiB TiB (powers of two), KB MB GB TB (powers of ten).

Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 no daemon.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          needsVerb("noun"),
		Args:          cobra.ArbitraryArgs,
	}
	root.SetHelpFunc(a.help(root.HelpFunc()))
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	f := root.PersistentFlags()
	f.StringVar(&a.socket, "socket", "", "the daemon's `PATH` (default $MPOOL_SOCKET, else the system's or the user's)")
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print names and ids only; no headings, notes or progress")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask before destroying something")
	root.AddCommand(
		noun("pool", "Pools of drives",
			newPoolCreate(a), newPoolActivate(a), newPoolDeactivate(a), newPoolDestroy(a), newPoolRename(a),
			newPoolSet(a), newPoolList(a), newPoolShow(a),
			newPoolScrub(a), newPoolScan(a), newPoolCheck(a), newPoolDump(a)),
		noun("root", "Named roots: where an application finds its first object",
			newRootSet(a), newRootList(a), newRootUnset(a)),
		noun("mblock", "Write-once extents",
			newMblockPut(a), newMblockGet(a), newMblockList(a), newMblockShow(a), newMblockDelete(a)),
		noun("mlog", "Append-only logs of records",
			newMlogCreate(a), newMlogAppend(a), newMlogRead(a), newMlogList(a), newMlogShow(a),
			newMlogErase(a), newMlogDelete(a)),
		noun("client", "Processes that are connected to the daemon", newClientList(a), newClientShow(a)),
		noun("handle", "What client processes hold", newHandleList(a)),
		noun("scope", "What may be used now, and is", newScopeList(a), newScopeShow(a), newScopeSet(a)),
		noun("event", "What happens", newEventFollow(a)),
		newQuota(a), newCredit(a),
		newStat(a), newDemo(a), newBench(a), newVersion(a), newCompletion(a), newMan(a),
	)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(newHelp())
	complete(a, root)
	return root
}

// help shows a command's help. What stands where a noun or a verb should, and is
// none, has no help: that is wrong usage.
func (a *app) help(show func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(c *cobra.Command, args []string) {
		if c.HasSubCommands() && c.Flags().NArg() > 0 {
			a.noHelp = c.RunE(c, c.Flags().Args())
			return
		}
		show(c, args)
	}
}

// newHelp declares the verb help.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [NOUN [VERB]]",
		Short:   "Show the help of a command",
		Example: `  mpoolctl help mblock put`,
		Args:    cobra.MaximumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 && found.RunE != nil {
				err = found.RunE(found, rest)
			}
			if err != nil {
				return err
			}
			return found.Help()
		},
	}
}

// noun groups the verbs of one kind of thing.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   name,
		Short: short,
		RunE:  needsVerb("verb"),
		Args:  cobra.ArbitraryArgs,
	}
	c.AddCommand(verbs...)
	return c
}

// needsVerb is what a command does that is not complete: it says so. Its errors
// are not marked as a verb's and so are errors of usage.
func needsVerb(what string) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown %s %q", what, args[0])
		}
		return fmt.Errorf("a %s is missing", what)
	}
}
