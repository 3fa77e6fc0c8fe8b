package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// daemonPatience bounds a daemon's start and its end.
const daemonPatience = 20 * time.Second

// mpoold is a running daemon, the real one, in a process of its own.
type mpoold struct {
	dir   string
	cmd   *exec.Cmd
	log   tail
	ended chan struct{} // closed when the process was waited for
	err   error         // of Wait; valid when ended is closed
}

// startDaemon starts a daemon with the text of a configuration, or without, and
// waits until it accepts. stop must be called.
func (b *bench) startDaemon(ctx context.Context, config string) (*mpoold, error) {
	dir, err := os.MkdirTemp("", "mpool-bench")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	d := &mpoold{dir: dir, ended: make(chan struct{})}
	args := []string{"--socket", d.socket()}
	if b.profile != "" {
		args = append(args, "--metrics", "unix:"+d.metrics(), "--pprof")
	}
	if config != "" {
		file := filepath.Join(dir, "config")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("configure mpoold: %w", err), os.RemoveAll(dir))
		}
		args = append(args, "--config", file)
	}
	d.cmd = exec.Command(b.mpoold, args...)
	d.cmd.Stderr = &d.log
	// It is told to end, or ends with this process.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start mpoold: %w", err), os.RemoveAll(dir))
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	if err := d.ready(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *mpoold) socket() string  { return filepath.Join(d.dir, "s") }
func (d *mpoold) metrics() string { return filepath.Join(d.dir, "m") }

// ready waits until the daemon accepts.
func (d *mpoold) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	for {
		c, err := client.Dial(ctx, client.Options{Socket: d.socket()})
		if err == nil {
			return c.Close()
		}
		select {
		case <-d.ended:
			return fmt.Errorf("mpoold has ended: %w\n%s", d.err, d.log.String())
		case <-ctx.Done():
			return fmt.Errorf("mpoold does not become ready: %w\n%s", err, d.log.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the daemon and removes what is left of it.
func (d *mpoold) stop() error {
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-d.ended:
	case <-time.After(daemonPatience):
		err = errors.Join(fmt.Errorf("mpoold does not end:\n%s", d.log.String()), d.cmd.Process.Kill())
		<-d.ended
	}
	if d.err != nil {
		err = errors.Join(err, fmt.Errorf("mpoold: %w\n%s", d.err, d.log.String()))
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// flags are what a client's process is told of the daemon.
func (d *mpoold) flags() []string {
	f := []string{"-socket", d.socket(), "-daemon", strconv.Itoa(d.cmd.Process.Pid)}
	if _, err := os.Stat(d.metrics()); err == nil {
		f = append(f, "-metrics", d.metrics())
	}
	return f
}

// client returns a side that is a process of this program with a daemon of its
// own.
func (b *bench) client(label, name string, args ...string) side {
	return b.clientOf(label, "", name, args...)
}

// clientOf is client of a daemon with the text of a configuration.
func (b *bench) clientOf(label, config, name string, args ...string) side {
	return side{name: label, daemon: true, run: func(ctx context.Context, _ int) (*measure.Result, error) {
		d, err := b.startDaemon(ctx, config)
		if err != nil {
			return nil, err
		}
		r, err := b.workWith(ctx, d.flags(), name, args...)
		if err != nil {
			err = fmt.Errorf("%w\nmpoold says:\n%s", err, d.log.String())
		}
		return r, errors.Join(err, d.stop())
	}}
}

// connection is a client's task's connection, with the pool that it works in.
type connection struct {
	*client.Conn
	pool api.Pool
	o    *options
}

// connect connects to the task's daemon.
func (o *options) connect(ctx context.Context) (*connection, error) {
	c, err := client.Dial(ctx, client.Options{Socket: o.socket, Reconnect: -1, Credits: o.credits})
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, o: o}, nil
}

// freshThrough makes a pool on the device through the daemon, whatever is on it.
func (o *options) freshThrough(ctx context.Context) (*connection, error) {
	c, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.CreatePool(ctx, poolName, []string{o.dev}, api.CreateOptions{Force: true}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.open(ctx)
}

// activateThrough activates the pool that is on the device through the daemon.
func (o *options) activateThrough(ctx context.Context) (*connection, error) {
	c, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.ActivatePool(ctx, poolName, []string{o.dev}, api.ActivateOptions{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.open(ctx)
}

// open opens the pool, which is active.
func (c *connection) open(ctx context.Context) (*connection, error) {
	var err error
	if c.pool, err = c.OpenPool(ctx, poolName); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	info, err := c.pool.Info(ctx)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.o.zone = info.ZoneSize
	return c, nil
}

// drive returns what the pool's drive has counted.
func (c *connection) drive(ctx context.Context) (client.DriveCounters, error) {
	s, err := c.Stat(ctx, poolName)
	if err != nil {
		return client.DriveCounters{}, err
	}
	if len(s.Drives) != 1 {
		return client.DriveCounters{}, fmt.Errorf("%d drives", len(s.Drives))
	}
	return s.Drives[0], nil
}

// finish closes everything, and says in the result what the daemon had of
// memory.
func (c *connection) finish(r *measure.Result) error {
	if r.Extra == nil {
		r.Extra = map[string]float64{}
	}
	shared, huge, err := sharedMemory(c.o.plan.Daemon)
	r.Extra["arenas"], r.Extra["hugeArenas"] = shared, huge
	return errors.Join(err, c.pool.Close(), c.Close())
}

// sharedMemory returns how many bytes of memory a process shares with others and
// how many of those are on huge pages.
func sharedMemory(pid int) (all, huge float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("look at the daemon: %w", err)
	}
	arena := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case !strings.HasSuffix(f[0], ":"): // a mapping's first line
			arena = strings.Contains(line, "memfd:mpool-arena")
		case arena && (f[0] == "Rss:" || f[0] == "ShmemPmdMapped:"):
			n, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return 0, 0, fmt.Errorf("%s: %w", line, err)
			}
			if f[0] == "Rss:" {
				all += n * 1024
			} else {
				huge += n * 1024
			}
		}
	}
	return all, huge, nil
}

// tailSize is how much of a daemon's log is kept, in bytes.
const tailSize = 16 << 10

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	// +checklocks:mu
	b []byte
}

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

// String returns the end of what was written.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
