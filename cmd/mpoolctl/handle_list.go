package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"
)

func newHandleList(a *app) *cobra.Command {
	var pid pidValue
	c := &cobra.Command{
		Use:   "list [POOL]",
		Short: "List the handles that client processes hold",
		Long: `List the handles that client processes hold: on pools, mblocks, mlogs, on logs that
are open for append or read, on metadata containers and on lists that are being
read. STATE is the object's; granted is an uncommitted one that is offered to another
process. REFS counts the references on the object, of everybody. Administrators see
everybody's handles, others those of their own user.`,
		Example: `  mpoolctl handle list data
  mpoolctl handle list --pid 4711`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			pool := ""
			if len(args) == 1 {
				pool = args[0]
			}
			return a.withDaemon(ctx, func(d daemon) error { return a.listHandles(ctx, d, pool, int32(pid)) })
		}),
	}
	c.Flags().Var(&pid, "pid", "only those of this process")
	return c
}

func (a *app) listHandles(ctx context.Context, d daemon, pool string, pid int32) error {
	out := newRowWriter(a, "%8v  %-16s  %-8s  %-16s  %-16s  %-11s  %s",
		"PID", "HANDLE", "KIND", "POOL", "OBJECT", "STATE", "REFS")
	for h, err := range d.Handles(ctx, pool, pid) {
		if err != nil {
			return errors.Join(out.flush(), err)
		}
		v := newHandleView(h)
		c := v.cells()
		if err := out.write(v, strconv.Itoa(int(v.PID)), c[0], c[1], c[2], c[3], c[4], c[5]); err != nil {
			return err
		}
	}
	return out.flush()
}

// pidValue is a flag that holds the number of a process; 0: not given.
type pidValue int32

func (v *pidValue) String() string { return "" }

func (v *pidValue) Set(s string) error {
	n, err := parsePID(s)
	*v = pidValue(n)
	return err
}

func (v *pidValue) Type() string { return "PID" }
