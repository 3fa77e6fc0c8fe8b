package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

func newCreditRelease(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "release POOL ID",
		Short: "End the credit acquire commands that hold an object",
		Long: `End the credit acquire commands that hold credits on an object, of all processes that
this user may interrupt, and print what they held. Each gives its credit back and ends
with exit code 0. Other programs are left alone: credit revoke takes what they have.
ENOENT if there is no such command.`,
		Example: `  mpoolctl credit release data @journal`,
		Args:    cobra.ExactArgs(2),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.withCredits(ctx, args[0], args[1], func(d daemon, _ client.Credits, id layout.ObjectID) error {
				list, err := creditsOn(ctx, d, args[0], id)
				if err != nil {
					return err
				}
				ended := []creditView{}
				done := make(map[int32]bool)
				for _, c := range had(list) {
					if _, seen := done[c.PID]; !seen {
						if done[c.PID], err = endAcquire(ctx, c.PID); err != nil {
							return err
						}
					}
					if done[c.PID] {
						ended = append(ended, c)
					}
				}
				if len(ended) == 0 {
					return &api.Error{Code: api.ENOENT, Op: "credit release", Object: id, Detail: "no credit acquire command holds a credit on it"}
				}
				return a.print(creditsView(ended))
			})
		}),
	}
}

// releasePatience is how long credit release waits for a process to end.
const releasePatience = 10 * time.Second

// endAcquire interrupts a process if it is a credit acquire command, and waits
// until it has ended; false: it is none.
func endAcquire(ctx context.Context, pid int32) (bool, error) {
	fd, err := unix.PidfdOpen(int(pid), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return false, nil // it has ended, or is not in sight
	}
	if err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// What the number means now is what it meant when the descriptor was made, if
	// the process still lives after it was looked at.
	words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !isAcquire(words) {
		return false, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return false, nil
		}
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	for end := time.Now().Add(releasePatience); ; {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 100)
		switch {
		case n > 0:
			return true, nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return false, fmt.Errorf("process %d: %w", pid, err)
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case time.Now().After(end):
			return false, api.Errorf(api.ETIMEDOUT, "", "process %d was interrupted and goes on: credit revoke takes what it has", pid)
		}
	}
}

// isAcquire says whether a process's words are those of a credit acquire command.
func isAcquire(cmdline []byte) bool {
	words := bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0})
	i := slices.IndexFunc(words, func(w []byte) bool { return string(w) == "credit" })
	name := words[0][bytes.LastIndexByte(words[0], '/')+1:]
	return string(name) == "mpoolctl" && i > 0 && i+1 < len(words) && string(words[i+1]) == "acquire"
}
