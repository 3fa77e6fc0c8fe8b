package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// logCount is how many processes have a log each.
const logCount = 8

// mlogClient compares durable appends through the daemon with those in process.
func (b *bench) mlogClient(ctx context.Context) error {
	for _, size := range []int{128, 4096} {
		args := []string{"-dev", b.disk, "-time", b.time.String(), "-size", strconv.Itoa(size), "-flight"}
		one, err := b.alternate(ctx,
			b.client("client", "client-mlog", append(args, "64")...),
			b.worker("in process", "mlog", append(args, "64")...),
		)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("disk, %d B, ", size)
		b.report(name+"64 appenders on one log", opsPerSecond, one[0], one[1], ratioAtLeast, 0.8, 0.95)
		many, err := b.alternate(ctx,
			b.client("clients", "client-logs", append(args, strconv.Itoa(logCount))...),
			b.worker("in process", "logs", append(args, strconv.Itoa(logCount))...),
		)
		if err != nil {
			return err
		}
		b.report(name+"8 processes with a log each", opsPerSecond, many[0], many[1], ratioAtLeast, 0.8, 0.95)
	}
	return nil
}

// log makes a committed log with a share of the pool's free space, and opens it.
func newLog(ctx context.Context, p api.Pool, share int64) (api.Mlog, error) {
	info, err := p.Info(ctx)
	if err != nil {
		return nil, err
	}
	m, err := p.AllocMlog(ctx, api.AllocOptions{Capacity: info.Space.Free / share})
	if err != nil {
		return nil, err
	}
	return m, m.Commit(ctx)
}

// appending appends a record durably; a full log ends the run.
func appending(ctx context.Context, a api.Appender, record []byte) error {
	_, err := a.Append(ctx, record, true)
	if errors.Is(err, api.EFBIG) {
		return measure.ErrStop
	}
	return err
}

// clientMlogWork appends records of o.size bytes to one log, through the daemon.
func clientMlogWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	m, err := newLog(ctx, c.pool, 2)
	if err != nil {
		return nil, err
	}
	a, err := m.OpenAppend(ctx)
	if err != nil {
		return nil, err
	}
	record := noise(int(o.size))
	if err := appending(ctx, a, record); err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	r, err := measure.Run(o.plan, func(int) error { return appending(ctx, a, record) })
	if err != nil {
		return nil, err
	}
	after, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * o.size
	r.Extra = perOperationThrough(before, after, r.Ops)
	return r, errors.Join(a.Close(ctx), m.Put(), c.finish(r))
}

// logsWork appends to o.plan.Workers logs in this process, one appender each.
func logsWork(ctx context.Context, o *options) (*measure.Result, error) {
	p, err := o.fresh(ctx, api.CreateOptions{})
	if err != nil {
		return nil, err
	}
	record := noise(int(o.size))
	logs := make([]api.Mlog, o.plan.Workers)
	appenders := make([]api.Appender, o.plan.Workers)
	for i := range logs {
		if logs[i], err = newLog(ctx, p, int64(2*o.plan.Workers)); err != nil {
			return nil, err
		}
		if appenders[i], err = logs[i].OpenAppend(ctx); err != nil {
			return nil, err
		}
		if err := appending(ctx, appenders[i], record); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before := p.DriveStats()[o.dev]
	r, err := measure.Run(o.plan, func(w int) error { return appending(ctx, appenders[w], record) })
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * o.size
	r.Extra = perOperation(before, p.DriveStats()[o.dev], r.Ops)
	for i, a := range appenders {
		if err := errors.Join(a.Close(ctx), logs[i].Put()); err != nil {
			return nil, err
		}
	}
	return r, p.Close()
}

// clientLogsWork makes o.plan.Workers logs and starts a process for each, which
// appends to it. The result is theirs together: of the percentiles the middle
// one's median is an average, the others are the worst of a process.
func clientLogsWork(ctx context.Context, o *options) (*measure.Result, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	children := make([]*child, o.plan.Workers)
	defer func() {
		for _, x := range children {
			if x != nil {
				x.kill()
			}
		}
	}()
	for i := range children {
		m, err := newLog(ctx, c.pool, int64(2*o.plan.Workers))
		if err != nil {
			return nil, err
		}
		if children[i], err = startChild(o, m.ID()); err != nil {
			return nil, err
		}
		if err := m.Put(); err != nil {
			return nil, err
		}
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	before, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	clock := measure.StartWith(o.plan.Daemon)
	for _, x := range children {
		if err := x.begin(); err != nil {
			return nil, err
		}
	}
	results := make([]*measure.Result, len(children))
	for i, x := range children {
		if results[i], err = x.result(); err != nil {
			return nil, err
		}
	}
	r := clock.Stop()
	together(r, results)
	after, err := c.drive(ctx)
	if err != nil {
		return nil, err
	}
	r.Bytes = r.Ops * o.size
	r.Extra = perOperationThrough(before, after, r.Ops)
	return r, c.finish(r)
}

// together puts the results of processes that ran at one time into r, which has
// the daemon's time.
func together(r *measure.Result, results []*measure.Result) {
	r.CPUUS, r.Seconds = 0, 0
	for _, x := range results {
		r.Ops += x.Ops
		r.CPUUS += x.CPUUS
		r.Seconds = max(r.Seconds, x.Seconds)
		r.P50US += x.P50US / float64(len(results))
		r.P99US, r.P999US = max(r.P99US, x.P99US), max(r.P999US, x.P999US)
	}
}

// child is a process that has said that it is ready, and waits to begin.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	log tail
}

// startChild starts a client-log process on a log.
func startChild(o *options, id layout.ObjectID) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	x := &child{cmd: exec.Command(self, "work", "client-log", "-socket", o.socket, "-kind", id.String(),
		"-time", o.plan.Time.String(), "-size", strconv.FormatInt(o.size, 10))}
	x.cmd.Stderr = &x.log
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no longer than this process
	if x.in, err = x.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	x.out = bufio.NewReader(out)
	if err := x.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	if line, err := x.out.ReadString('\n'); err != nil || line != ready {
		x.kill()
		return nil, fmt.Errorf("a process is not ready: %q %w\n%s", line, err, x.log.String())
	}
	return x, nil
}

// ready is what a process says on its standard output before it waits for the
// end of its standard input.
const ready = "ready\n"

// begin makes the process begin.
func (x *child) begin() error { return x.in.Close() }

// result waits for the process.
func (x *child) result() (*measure.Result, error) {
	b, err := io.ReadAll(x.out)
	if err := errors.Join(err, x.cmd.Wait()); err != nil {
		return nil, fmt.Errorf("a client: %w\n%s", err, x.log.String())
	}
	r := new(measure.Result)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("a client: no result: %w\n%s%s", err, b, x.log.String())
	}
	return r, nil
}

// kill ends the process if it runs still.
func (x *child) kill() {
	if x.cmd.ProcessState == nil {
		_ = x.cmd.Process.Kill() //nolint:errcheck // it may end just now
		_ = x.cmd.Wait()         //nolint:errcheck // "signal: killed" is what is wanted
	}
}

// clientLogWork appends to the log that -kind names when it is told to begin.
func clientLogWork(ctx context.Context, o *options) (*measure.Result, error) {
	id, err := strconv.ParseUint(o.kind, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("log %q: %w", o.kind, err)
	}
	c, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	if c, err = c.open(ctx); err != nil {
		return nil, err
	}
	m, err := c.pool.Mlog(ctx, layout.ObjectID(id))
	if err != nil {
		return nil, err
	}
	a, err := m.OpenAppend(ctx)
	if err != nil {
		return nil, err
	}
	record := noise(int(o.size))
	if err := appending(ctx, a, record); err != nil {
		return nil, err
	}
	if _, err := os.Stdout.WriteString(ready); err != nil {
		return nil, fmt.Errorf("say ready: %w", err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return nil, fmt.Errorf("wait for the beginning: %w", err)
	}
	r, err := measure.Run(o.plan, func(int) error { return appending(ctx, a, record) })
	if err != nil {
		return nil, err
	}
	return r, errors.Join(a.Close(ctx), m.Put(), c.pool.Close(), c.Close())
}
