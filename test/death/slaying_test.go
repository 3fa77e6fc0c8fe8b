package death

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What follows is the test's part in a victim's end.

// slay ends the victim in its way.
func (v *victimPlan) slay(l *ledger, told <-chan struct{}) error {
	kill := func(s int) { _ = v.cmd.Process.Signal(syscall.Signal(s)) } // how it ended says whether it was
	switch v.args.way {
	case bySignal, inUserNS, ownInit, innerInit:
		kill(v.args.number)
	case stopped:
		kill(int(unix.SIGSTOP))
		time.Sleep(v.pause) // any will do
		kill(int(unix.SIGKILL))
	case resumed:
		kill(int(unix.SIGSTOP))
		time.Sleep(v.pause + v.stopped) // any will do
		kill(int(unix.SIGCONT))
		v.order()
		v.killServed(l, told)
	case traced:
		return onThread(func() error { return v.trace(v.cmd.Process.Pid, true) })
	case released:
		if err := onThread(func() error { return v.trace(v.cmd.Process.Pid, false) }); err != nil {
			return err
		}
		v.order()
		v.killServed(l, told)
	case firstThread:
		v.order()
		v.killServed(l, told)
	case lastThread:
		v.endThreads(told)
	case starved:
		group, err := v.starve()
		if err != nil {
			return err
		}
		v.group = group
		v.order()
	case byExit, byOwnSignal, byCore, heir, byExec, closeAll, shutWrite, shutRead, numWays:
		v.order()
	}
	return nil
}

// order tells the victim to do its part.
func (v *victimPlan) order() {
	_, _ = v.stdin.Write([]byte("x")) // it may be dead, for a mistake that it has told of
}

// killServed kills the victim when it has shown that it is a client still.
func (v *victimPlan) killServed(l *ledger, told <-chan struct{}) {
	select {
	case <-l.served:
		time.Sleep(v.pause) // any will do
	case <-told:
	case <-time.After(v.patience):
	}
	_ = v.cmd.Process.Kill() // it may be dead
}

// endThreads has every thread of the victim end by itself.
func (v *victimPlan) endThreads(told <-chan struct{}) {
	dir := fmt.Sprintf("/proc/%d/task", v.cmd.Process.Pid)
	for end := time.Now().Add(v.patience); time.Now().Before(end); {
		threads, _ := os.ReadDir(dir) // it is there until it is waited for
		for _, e := range threads {
			if tid, err := strconv.Atoi(e.Name()); err == nil {
				_ = unix.Tgkill(v.cmd.Process.Pid, tid, threadSignal) // it may have ended
			}
		}
		select {
		case <-told:
			return
		case <-time.After(time.Millisecond): // as more threads may have been made
		}
	}
}

// starve puts the victim into a cgroup that has hardly any memory.
func (v *victimPlan) starve() (group string, err error) {
	for _, c := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // the first version
		{"/sys/fs/cgroup", "memory.max"},
	} {
		group := filepath.Join(c.root, fmt.Sprintf("mpool-death-%d-%d", os.Getpid(), v.args.serial))
		if err = os.Mkdir(group, 0o755); err != nil {
			continue
		}
		if err = os.WriteFile(filepath.Join(group, c.limit), []byte("16777216"), 0o644); err == nil {
			pid := strconv.Itoa(v.cmd.Process.Pid)
			err = os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0o644)
			return group, err
		}
		err = errors.Join(err, os.Remove(group))
	}
	return "", fmt.Errorf("no cgroup limits memory: %w", err)
}

// onThread runs f on a thread of its own, as a tracer has to be.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// trace stops all threads of a process as its tracer, and kills it so or lets it
// go.
func (v *victimPlan) trace(pid int, kill bool) error {
	var held []int
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range threads {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if unix.PtraceSeize(tid) != nil {
			continue // it has ended
		}
		if err := unix.PtraceInterrupt(tid); err != nil {
			return fmt.Errorf("interrupt thread: %w", err)
		}
		var st unix.WaitStatus
		if _, err := unix.Wait4(tid, &st, unix.WALL, nil); err != nil {
			return fmt.Errorf("wait for thread: %w", err)
		}
		if st.Stopped() {
			held = append(held, tid)
		}
	}
	time.Sleep(v.pause) // any will do
	if !kill {
		for _, tid := range held {
			if err := unix.PtraceDetach(tid); err != nil {
				return fmt.Errorf("let thread go: %w", err)
			}
		}
		return nil
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return err
	}
	for _, tid := range held {
		if tid != pid { // whoever started the process waits for that
			_, _ = unix.Wait4(tid, nil, unix.WALL, nil) // which frees the thread
		}
	}
	return nil
}
