package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/bench/measure"
)

// askEvery is the break between two questions about what a victim holds.
const askEvery = 200 * time.Microsecond

// reclaimPatience bounds the wait for a victim, or for the news of its end.
const reclaimPatience = 60 * time.Second

// undertaker watches the ends of other clients.
type undertaker struct {
	*connection
	asker  *asker
	bait   layout.ObjectID // of a committed mblock, which every victim holds
	idle   api.Space       // without victims
	told   chan obituary
	missed error // why no more are told
	end    context.CancelFunc
	keep   io.Closer // what a storm's victims live by, or nil
}

// obituary is the news of a client's end, and when it came.
type obituary struct {
	client.Event
	at int64 // ns of CLOCK_MONOTONIC
}

// newUndertaker makes a pool with as many small mblocks as victims are to hold,
// and begins to watch.
func newUndertaker(ctx context.Context, o *options) (*undertaker, error) {
	c, err := o.freshThrough(ctx)
	if err != nil {
		return nil, err
	}
	u := &undertaker{connection: c, told: make(chan obituary, stormClients)}
	err = u.stock(ctx)
	if err == nil {
		u.asker, err = newAsker(o.socket)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	ctx, u.end = context.WithCancel(ctx)
	since := time.Now()
	go u.listen(ctx, since)
	return u, nil
}

// stock commits the mblocks.
func (u *undertaker) stock(ctx context.Context) error {
	data := noise(readSize)
	err := parallel(int(u.o.objects)-1, func(int) error {
		_, err := u.store(ctx, data)
		return err
	})
	if err == nil {
		u.bait, err = u.store(ctx, data)
	}
	if err != nil {
		return err
	}
	info, err := u.pool.Info(ctx)
	u.idle = info.Space
	return err
}

// store commits an mblock and lets go of it.
func (u *undertaker) store(ctx context.Context, data []byte) (layout.ObjectID, error) {
	m, err := u.pool.AllocMblock(ctx, api.AllocOptions{Capacity: readSize})
	if err != nil {
		return 0, err
	}
	_, err = m.Write(ctx, data)
	return m.ID(), errors.Join(err, m.Commit(ctx), m.Put())
}

// holds returns how many handles a victim has.
func (u *undertaker) holds() int64 {
	return 1 + u.o.objects + (u.o.objects+handlesPerWrite-1)/handlesPerWrite
}

// listen passes on the news of ends.
func (u *undertaker) listen(ctx context.Context, since time.Time) {
	defer close(u.told)
	for e, err := range u.Events(ctx, client.EventOptions{Since: since, Follow: true}) {
		at := monotonic()
		if err != nil {
			u.missed = err
			return
		}
		if e.Type == ioctl.EventClientReaped {
			u.told <- obituary{e, at}
		}
	}
}

// hear waits for the news of an end.
func (u *undertaker) hear() (obituary, error) {
	t := time.NewTimer(reclaimPatience)
	defer t.Stop()
	select {
	case n, ok := <-u.told:
		if !ok {
			return n, fmt.Errorf("wait for news: %w", u.missed)
		}
		return n, nil
	case <-t.C:
		return obituary{}, errors.New("no news of a victim's end")
	}
}

// settled returns an error unless nothing is held but by this process.
func (u *undertaker) settled(ctx context.Context) error {
	s, err := u.Stat(ctx, poolName)
	if err != nil {
		return err
	}
	info, err := u.pool.Info(ctx)
	if err != nil {
		return err
	}
	const own = 2 // handles, on the pool
	if s.Handles != own || info.Space.Uncommitted != 0 {
		return fmt.Errorf("%d handles and %d bytes of uncommitted mblocks are held after the event", s.Handles-own, info.Space.Uncommitted)
	}
	return nil
}

// close ends the watch, and says what is not as it was.
func (u *undertaker) close(ctx context.Context, r *measure.Result) error {
	u.end()
	var err error
	for n := range u.told {
		err = errors.Join(err, fmt.Errorf("process %d's end was told again", n.PID))
	}
	info, ierr := u.pool.Info(ctx)
	for end := time.Now().Add(reclaimPatience); ierr == nil && info.Space != u.idle; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ierr = fmt.Errorf("space is %+v; it was %+v", info.Space, u.idle)
			break
		}
		info, ierr = u.pool.Info(ctx) // zones are discarded before they are free
	}
	return errors.Join(err, ierr, u.asker.close(), u.finish(r))
}

// victim is a process that is about to be killed.
type victim struct {
	cmd   *exec.Cmd
	stdin io.Closer  // what it and its child live by
	ends  chan int64 // when, in ns of CLOCK_MONOTONIC
	dead  chan int64
	end   *os.File // of a socket pair
	pidfd *os.File
}

// startVictim starts a process that holds what a victim holds.
func (u *undertaker) startVictim() (*victim, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, err
	}
	v := &victim{end: os.NewFile(uintptr(pair[0]), "socket"), ends: make(chan int64, 1), dead: make(chan int64, 1)}
	ready, says, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, v.end.Close())
	}
	defer ready.Close()
	defer says.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	v.cmd = exec.Command(self, "work", "client-victim", "-socket", u.o.socket, "-objects", strconv.FormatInt(u.o.objects, 10),
		"-size", strconv.FormatInt(u.o.size, 10), "-kind", u.o.kind)
	v.cmd.ExtraFiles = []*os.File{says, theirs}
	v.cmd.Stderr = os.Stderr
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	if err := awaitReady(ready, says, 1); err != nil {
		return nil, errors.Join(err, v.cmd.Process.Kill())
	}
	return v, v.watch()
}

// awaitReady waits until so many victims have said that they are ready.
func awaitReady(ready, says *os.File, n int) error {
	_ = says.Close() // else a victim that ends is not noticed
	if err := ready.SetReadDeadline(time.Now().Add(reclaimPatience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(ready, make([]byte, n)); err != nil {
		return fmt.Errorf("a victim does not become ready: %w", err)
	}
	return nil
}

// watch notes when the kernel says that the victim is dead, and that its end of
// the socket pair is closed.
func (v *victim) watch() error {
	fd, err := unix.PidfdOpen(v.cmd.Process.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("open pidfd: %w", err)
	}
	v.pidfd = os.NewFile(uintptr(fd), "pidfd")
	go note(v.end, v.ends)
	go func() {
		// A pidfd cannot be read, but waited for.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(fds, -1)
			if n == 1 || !errors.Is(err, unix.EINTR) {
				break
			}
		}
		v.dead <- monotonic()
	}()
	return nil
}

// note notes when a socket has come to its end.
func note(f *os.File, at chan<- int64) {
	if _, err := f.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		at <- monotonic()
	}
	close(at)
}

// moments are those of all victims, in ms after the kill unless said otherwise.
type moments struct {
	exit   []float64 // the kernel ran the tracepoint for the victim's last thread
	free   []float64 // the daemon had ended all handles, by its own clock
	after  []float64 // free, after exit: the daemon's own part
	seen   []float64 // another process had the answer that no reference is held
	told   []float64 // the event says that all is given back
	pidfd  []float64 // it is readable
	socket []float64 // another socket of the victim's has come to its end
	over   []float64 // free, after pidfd
}

// kill kills a victim and notes when what it held was free.
func (u *undertaker) kill(ctx context.Context, v *victim, m *moments, l *measure.Latencies) error {
	h, err := u.asker.find(u.bait)
	if err != nil {
		return err
	}
	if n, err := u.asker.references(h); err != nil || n != 2 {
		return errors.Join(err, fmt.Errorf("%d references are held before the kill, not 2", n))
	}
	began := monotonic()
	if err := v.cmd.Process.Kill(); err != nil {
		return err
	}
	seen, err := u.asker.await(h)
	if err != nil {
		return err
	}
	if u.bait, err = u.store(ctx, noise(readSize)); err != nil {
		return err
	}
	n, err := u.hear()
	if err != nil {
		return err
	}
	if int(n.PID) != v.cmd.Process.Pid || n.Cause != ioctl.CauseSignal || int64(n.References) != u.holds() {
		return fmt.Errorf("process %d was killed; news: %+v", v.cmd.Process.Pid, n.Event)
	}
	// Who asks after that moment meets no reference.
	if n.Free < began || seen.held > n.Free {
		return fmt.Errorf("the daemon says that all was free %.3f ms after the kill; what was asked %.3f ms after it was answered with references",
			since(began, n.Free), since(began, seen.held))
	}
	if err := u.settled(ctx); err != nil {
		return err
	}
	dead := <-v.dead
	if n.Exit != 0 {
		m.exit, m.after = append(m.exit, since(began, n.Exit)), append(m.after, since(n.Exit, n.Free))
	}
	m.free, m.seen, m.told = append(m.free, since(began, n.Free)), append(m.seen, since(began, seen.free)), append(m.told, since(began, n.at))
	m.pidfd, m.over = append(m.pidfd, since(began, dead)), append(m.over, since(dead, n.Free))
	l.Add(time.Duration(n.Free - began))
	if u.o.kind == "" {
		m.socket = append(m.socket, since(began, <-v.ends))
	}
	_ = v.stdin.Close() // which ends the child
	_ = v.cmd.Wait()    //nolint:errcheck // "signal: killed" is what is wanted
	<-v.ends            // the last who had the socket
	return errors.Join(v.end.Close(), v.pidfd.Close(), buryOrphans())
}

// buryOrphans waits for the children that victims have left to this process.
func buryOrphans() error {
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for a victim's child: %w", err)
		}
	}
}

// clientReclaimWork kills o.plan.Ops clients, one after another.
func clientReclaimWork(ctx context.Context, o *options) (*measure.Result, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the parent of victims' children: %w", err)
	}
	u, err := newUndertaker(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := o.measured(); err != nil {
		return nil, err
	}
	// Breaks are as long as is said, not 50 µs longer.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("make sleeps exact: %w", err)
	}
	var m moments
	var l measure.Latencies
	clock := measure.StartWith(o.plan.Daemon)
	for range o.plan.Ops {
		v, err := u.startVictim()
		if err != nil {
			return nil, err
		}
		if err := u.kill(ctx, v, &m, &l); err != nil {
			return nil, err
		}
	}
	r := clock.Stop()
	r.Latencies(l)
	r.Extra = map[string]float64{}
	for name, v := range map[string][]float64{"exit": m.exit, "free": m.free, "after": m.after, "seen": m.seen, "told": m.told, "pidfd": m.pidfd, "socket": m.socket, "freeOver": m.over} {
		if len(v) > 0 {
			slices.Sort(v)
			r.Extra[name+"P50"], r.Extra[name+"P99"] = v[len(v)/2], v[min(len(v)*99/100, len(v)-1)]
		}
	}
	return r, u.close(ctx, r)
}
