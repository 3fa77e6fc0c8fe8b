package main

import (
	"cmp"
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

func newClientList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the client processes that are connected",
		Long: `List the sessions of client processes: who is connected, since when, and how much
it holds. A process with several connections is there several times; this command
itself is one of them. Administrators see everybody, others the sessions of their
own user.`,
		Example: `  mpoolctl client list
  mpoolctl --json client list | jq 'select(.mblocks_uncommitted > 0)'`,
		Args: cobra.NoArgs,
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.withDaemon(ctx, func(d daemon) error {
				out := newRowWriter(a, "%8v  %6v  %-16s  %-30s  %7v  %11v  %10s  %9v  %9v",
					"PID", "UID", "COMMAND", "CONNECTED", "HANDLES", "UNCOMMITTED", "MEMORY", "IN FLIGHT", "REQUESTS")
				for c, err := range d.EachClient(ctx, 0) {
					if err != nil {
						return errors.Join(out.flush(), err)
					}
					v := newClientView(c)
					if err := out.write(v, strconv.Itoa(int(v.PID)), v.UID, cmp.Or(v.Comm, "-"), v.Connected, v.Handles,
						v.Uncommitted, formatSize(int64(v.MemoryBytes)), v.InFlight, v.Requests); err != nil {
						return errors.Join(err, out.flush())
					}
				}
				return out.flush()
			})
		}),
	}
}

// clientView is a session as it is shown.
type clientView struct {
	PID                int32  `json:"pid"`
	UID                uint32 `json:"uid"`
	GID                uint32 `json:"gid"`
	Comm               string `json:"comm"`
	Session            uint64 `json:"session"`
	Connected          string `json:"connected"`
	Handles            uint32 `json:"handles"`
	Uncommitted        uint32 `json:"uncommitted"` // mblocks and mlogs
	MblocksUncommitted uint32 `json:"mblocks_uncommitted"`
	MemoryBytes        uint64 `json:"memory_bytes"`
	InFlight           uint32 `json:"in_flight"` // requests
	Requests           uint64 `json:"requests"`  // since it connected
}

func newClientView(c client.ClientInfo) clientView {
	return clientView{
		PID: c.PID, UID: c.UID, GID: c.GID, Comm: c.Comm, Session: c.Session, Connected: formatTime(c.Connected),
		Handles: c.Handles, Uncommitted: c.Uncommitted, MblocksUncommitted: c.Mblocks, MemoryBytes: c.Memory,
		InFlight: c.InFlight, Requests: c.Requests,
	}
}
