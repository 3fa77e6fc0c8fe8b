package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// side is one side of a comparison.
type side struct {
	name    string
	daemon  bool   // our side, through a daemon
	missing string // why it cannot be run; "": it can
	run     func(ctx context.Context, turn int) (*measure.Result, error)
}

// series is what a side measured, turn by turn.
type series struct {
	Name    string
	Daemon  bool
	Missing string // why there are no runs; "": there are
	Runs    []*measure.Result
}

// without returns a side that there is not, and says why.
func without(label, why string) side { return side{name: label, missing: why} }

// retries is how often a turn is tried for one that others leave alone.
const retries = 4

// alternate runs the sides in turn, as often as there are alternations. While
// there is patience, a turn that others disturbed is taken again; the least
// disturbed one counts.
func (b *bench) alternate(ctx context.Context, sides ...side) ([]*series, error) {
	all := make([]*series, len(sides))
	for i, s := range sides {
		all[i] = &series{Name: s.name, Daemon: s.daemon, Missing: s.missing}
	}
	for turn := range b.turns {
		var best []*measure.Result
		least := 0.0
		for try := range retries {
			results, cores, err := b.turn(ctx, sides, turn)
			if err != nil {
				return nil, err
			}
			if try == 0 || cores < least {
				best, least = results, cores
			}
			if least <= quietEnough || b.patience == 0 {
				break
			}
		}
		b.disturbed = append(b.disturbed, least)
		for i, r := range best {
			if r != nil {
				all[i].Runs = append(all[i].Runs, r)
			}
		}
	}
	return all, nil
}

// turn runs each side once. It returns how many cores others used during the
// side that they disturbed most.
func (b *bench) turn(ctx context.Context, sides []side, turn int) ([]*measure.Result, float64, error) {
	if err := b.waitQuiet(ctx); err != nil {
		return nil, 0, err
	}
	results := make([]*measure.Result, len(sides))
	most := 0.0
	for n := range sides {
		i := n
		if turn%2 == 1 { // A B B A: neither always has what the other leaves
			i = len(sides) - 1 - n
		}
		s := sides[i]
		if s.missing != "" {
			continue
		}
		cores, err := others(func() (err error) {
			results[i], err = s.run(ctx, turn)
			return err
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", s.name, err)
		}
		most = max(most, cores)
	}
	return results, most, nil
}

// worker returns a side that is a process of this program. It ends with its
// result, or by killing itself after it printed it.
func (b *bench) worker(label, name string, args ...string) side {
	return side{name: label, run: func(ctx context.Context, _ int) (*measure.Result, error) {
		return b.work(ctx, name, args...)
	}}
}

// work runs a process of this program.
func (b *bench) work(ctx context.Context, name string, args ...string) (*measure.Result, error) {
	return b.workWith(ctx, nil, name, args...)
}

// workWith is work with further arguments that do not tell runs apart.
func (b *bench) workWith(ctx context.Context, further []string, name string, args ...string) (*measure.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	args = append([]string{"work", name}, args...)
	if b.profile != "" {
		file := strings.NewReplacer("/", "_", " ", "").Replace(strings.Join(args[1:], " "))
		args = append(args, "-profile", filepath.Join(b.profile, file))
	}
	return process(ctx, self, append(args, further...)...)
}

// anchor returns a side that is a process of the anchors' program.
func (b *bench) anchor(label string, args ...string) side {
	if b.noAnchors != "" {
		return without(label, b.noAnchors)
	}
	return side{name: label, run: func(ctx context.Context, _ int) (*measure.Result, error) {
		return process(ctx, b.anchors, args...)
	}}
}

// process runs a program that prints a result.
func process(ctx context.Context, program string, args ...string) (*measure.Result, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no longer than this process
	var out, msg bytes.Buffer
	c.Stdout, c.Stderr = &out, &msg
	err := c.Run()
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL && ctx.Err() == nil
	if err != nil && !killed {
		return nil, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, msg.Bytes())
	}
	r := new(measure.Result)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("%s %s: no result: %w\n%s%s", program, strings.Join(args, " "), err, out.Bytes(), msg.Bytes())
	}
	return r, nil
}
