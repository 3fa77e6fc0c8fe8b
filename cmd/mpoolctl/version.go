package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/client"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of mpoolctl and of the daemon, if there is one",
		Long: `Print the versions of mpoolctl and of the daemon, if there is one. The field
json_version is the version of everything that --json prints: it is raised when a
field is removed or changes its meaning, not when one is added.`,
		Example: `  mpoolctl version`,
		Args:    cobra.NoArgs,
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			v := versionView{JSONVersion: jsonVersion, Version: ownVersion(), Go: runtime.Version()}
			err := a.withDaemon(ctx, func(d daemon) error {
				dv, err := d.Version(ctx)
				v.Daemon = &daemonVersion{Version: dv.Daemon, Go: dv.Go, Protocol: dv.Protocol, PID: dv.PID}
				return err
			})
			if err != nil && !errors.Is(err, client.ErrNoDaemon) {
				return err
			}
			return a.print(v)
		}),
	}
}

// jsonVersion is the version of what --json prints. It is raised when a field is
// removed or changes its meaning.
const jsonVersion = 1

// ownVersion is the version that this program was built as.
func ownVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// versionView is what runs, here and there.
type versionView struct {
	JSONVersion int            `json:"json_version"`
	Version     string         `json:"version"`
	Go          string         `json:"go"`
	Daemon      *daemonVersion `json:"daemon"` // null: there is none
}

type daemonVersion struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Protocol uint16 `json:"protocol"`
	PID      int32  `json:"pid"`
}

func (v versionView) show(w io.Writer, quiet bool) error {
	if quiet {
		return writeLines(w, v.Version)
	}
	theirs := "none"
	if d := v.Daemon; d != nil {
		theirs = fmt.Sprintf("%s (%s), protocol %d, pid %d", d.Version, d.Go, d.Protocol, d.PID)
	}
	return writeFields(w, "mpoolctl", fmt.Sprintf("%s (%s)", v.Version, v.Go), "mpoold", theirs)
}
