package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

func newClientShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show PID",
		Short: "Show a client process and the handles that it holds",
		Long: `Show the sessions of one client process with every handle that each holds. With
--json there is one object per session and line, with the handles in "holds".`,
		Example: `  mpoolctl client show 4711`,
		Args:    cobra.ExactArgs(1),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			pid, err := parsePID(args[0])
			if err != nil {
				return usageError{text: err.Error()}
			}
			return a.withDaemon(ctx, func(d daemon) error { return a.showClient(ctx, d, pid) })
		}),
	}
}

// showClient shows the sessions of a process, one after the other, and what each
// holds.
func (a *app) showClient(ctx context.Context, d daemon, pid int32) error {
	held, stop := iter.Pull2(d.Handles(ctx, "", pid))
	defer stop()
	h, err, more := held()
	shown := 0
	for c, cerr := range d.EachClient(ctx, pid) {
		if cerr != nil {
			return cerr
		}
		v := clientHolds{clientView: newClientView(c), Holds: []handleView{}}
		// Both come in the order of sessions.
		for ; more && err == nil && h.Session <= c.Session; h, err, more = held() {
			if h.Session == c.Session {
				v.Holds = append(v.Holds, newHandleView(h))
			}
		}
		if err != nil {
			return err
		}
		if shown > 0 && !a.json && !a.quiet {
			if err := writeLines(a.stdout, ""); err != nil {
				return err
			}
		}
		if err := a.print(v); err != nil {
			return err
		}
		shown++
	}
	if err == nil && shown == 0 {
		return api.Errorf(api.ENOENT, "", "process %d has no session that you may see", pid)
	}
	return err
}

// clientHolds is a session with its handles.
type clientHolds struct {
	clientView
	Holds []handleView `json:"holds"`
}

func (v clientHolds) show(out io.Writer, quiet bool) error {
	if quiet {
		return writeLines(out, strconv.Itoa(int(v.PID)))
	}
	w := bufio.NewWriter(out)
	err := writeFields(w,
		"process", fmt.Sprintf("%d (%s)", v.PID, v.Comm), "user", fmt.Sprintf("uid %d, gid %d", v.UID, v.GID),
		"session", number(v.Session), "connected", v.Connected,
		"handles", number(uint64(v.Handles)),
		"uncommitted", fmt.Sprintf("%s, %d of them mblocks", plural(int(v.Uncommitted), "object"), v.MblocksUncommitted),
		"memory", showBytes(int64(v.MemoryBytes)),
		"requests", fmt.Sprintf("%d, %d in flight", v.Requests, v.InFlight))
	if err != nil {
		return err
	}
	if len(v.Holds) > 0 {
		rows := make([][]string, 0, len(v.Holds))
		for _, h := range v.Holds {
			rows = append(rows, h.cells())
		}
		if err := writeLines(w, ""); err != nil {
			return err
		}
		if err := writeTable(w, []string{"HANDLE", "KIND", "POOL", "OBJECT", "STATE", "REFS"}, rows); err != nil {
			return err
		}
	}
	return w.Flush()
}

// handleView is a handle as it is shown.
type handleView struct {
	PID     int32  `json:"pid"`
	Session uint64 `json:"session"`
	Handle  string `json:"handle"` // 16 hex digits; means something in its session only
	Kind    string `json:"kind"`
	Pool    string `json:"pool"`
	Object  string `json:"object"`  // "": none
	Refs    uint32 `json:"refs"`    // references on the object, of everybody
	State   string `json:"state"`   // of the object; "": none
	Granted bool   `json:"granted"` // it is offered to another process
}

func newHandleView(h client.HandleInfo) handleView {
	v := handleView{
		PID: h.PID, Session: h.Session, Handle: fmt.Sprintf("%016x", uint64(h.Handle)), Kind: h.Kind.String(),
		Pool: h.Pool, Refs: h.Refs, Granted: h.Granted,
	}
	if h.Object != 0 {
		v.Object = h.Object.String()
	}
	if h.State != 0 {
		v.State = h.State.String()
	}
	return v
}

// cells are the columns of a handle that people see, but the process.
func (v handleView) cells() []string {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	refs := "-"
	if v.Object != "" {
		refs = strconv.FormatUint(uint64(v.Refs), 10)
	}
	state := dash(v.State)
	if v.Granted {
		state = "granted" // and uncommitted, as all that are
	}
	return []string{v.Handle, v.Kind, dash(v.Pool), dash(v.Object), state, refs}
}

// parsePID reads the number of a process.
func parsePID(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("process %q: want its number", s)
	}
	return int32(n), nil
}
