package death

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/test/daemon"
)

// victimPlan is one victim's life.
type victimPlan struct {
	args     victimArgs
	atWork   bool          // its time begins when it is at work, not when it is born
	life     time.Duration // until the test ends it
	pause    time.Duration // while it is stopped, or before it is killed at last
	stopped  time.Duration // while it is stopped, beside that
	patience time.Duration

	grants [2]*os.File // the pipe of what victims hand over
	cmd    *exec.Cmd
	stdin  *os.File // its other end; the victim ends when it is closed
	stderr bytes.Buffer
	dir    string             // its working directory, for its core
	group  string             // its cgroup
	end    syscall.WaitStatus // what waitpid said
	heir   int                // a child of it that lives on
}

// soonest are the ways that a victim may be made to take before it is at work:
// it need not prepare.
var soonest = []way{bySignal, stopped, byExit, byExec, closeAll}

// crowd is how many victims at most all work as fast as they can.
const crowd = 32

// newVictimPlan plans one life of so many at one time.
func newVictimPlan(rng *rand.Rand, root bool, at int) *victimPlan {
	v := &victimPlan{atWork: rng.IntN(8) > 0, patience: daemon.Patience}
	v.args = victimArgs{
		seed: rng.Uint64(), workers: 1 + rng.IntN(4), state: state(rng.IntN(len(states))), way: way(rng.IntN(int(numWays))),
	}
	switch rng.IntN(6) {
	case 0:
		v.args.way = bySignal
	case 1, 2:
		v.args.state = 0 // anything
	}
	if at > crowd {
		v.args.pace = time.Duration(at) * time.Millisecond
		if rng.IntN(at) > crowd {
			v.args.state = stillOne(rng)
		}
	}
	v.args.number = v.args.way.number(rng)
	if v.args.way.needsRoot() && !root || !v.atWork && !slices.Contains(soonest, v.args.way) {
		v.args.way = bySignal
		v.args.number = int(unix.SIGKILL)
	}
	if !v.atWork && v.args.way == bySignal {
		v.args.number = int(unix.SIGKILL)
	}
	v.life = time.Duration(rng.IntN(12_000)) * time.Microsecond
	if rng.IntN(8) == 0 {
		v.life *= 6
	}
	if states[v.args.state].still {
		v.life /= 8 // there is nothing to wait for
	}
	v.pause = time.Duration(rng.IntN(20_000)) * time.Microsecond
	return v
}

// start makes the victim. Its report is read from r.
func (v *victimPlan) start(socket string) (r *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	v.cmd = exec.Command(os.Args[0])
	role := "victim"
	if v.args.way == innerInit {
		role = "init"
	}
	v.cmd.Env = append(os.Environ(), envRole+"="+role, envSocket+"="+socket, envArgs+"="+v.args.String(), "GOMAXPROCS=2")
	v.cmd.ExtraFiles = []*os.File{w, v.grants[0], v.grants[1]}
	v.cmd.Stderr = &v.stderr
	switch v.args.way { //nolint:exhaustive // the others need nothing
	case byCore:
		if v.dir, err = os.MkdirTemp("", "core"); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		v.cmd.Dir = v.dir
	case innerInit, ownInit:
		v.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	case inUserNS:
		v.cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: os.Getegid(), Size: 1}},
		}
	}
	in, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	v.cmd.Stdin, v.stdin = in, out
	if err := errors.Join(v.cmd.Start(), in.Close()); err != nil {
		return nil, errors.Join(err, r.Close(), out.Close())
	}
	return r, nil
}

// run is the victim's life. It returns when it is dead and everything that it
// told is read. It calls born when it is at work or will never be, and then
// waits for the signal to die, if there is one.
func (v *victimPlan) run(socket string, born func(), die <-chan struct{}) (*ledger, error) {
	l := newLedger()
	l.plan = fmt.Sprintf("at %v, by %v, %d", v.args.state, v.args.way, v.args.number)
	r, err := v.start(socket)
	if err != nil {
		born()
		return l, err
	}
	defer r.Close()
	told := make(chan struct{})
	go func() {
		defer close(told)
		l.read(r)
	}()
	if v.atWork {
		select {
		case <-l.ready:
		case <-told:
		case <-time.After(v.patience):
			err = errors.New("it is not at work for long")
		}
	}
	born()
	if die != nil {
		<-die
	} else {
		time.Sleep(v.life) // the moment of its death; any will do
	}
	err = errors.Join(err, v.slay(l, told))
	select {
	case <-told:
	case <-time.After(v.patience):
		_ = v.cmd.Process.Kill() // it may end just now
		err = errors.Join(err, errors.New("it does not end"))
	}
	<-told
	v.heir = l.heir
	var werr error
	v.end, werr = v.check(v.cmd.Wait())
	if v.heir == 0 {
		err = errors.Join(err, v.stdin.Close())
	}
	err = errors.Join(err, werr, v.tidy())
	if err != nil {
		err = fmt.Errorf("process %d, %s: %w\n%s", v.cmd.Process.Pid, l.plan, err, v.stderr.Bytes())
	}
	return l, err
}

// tidy removes what was made for the victim's end.
func (v *victimPlan) tidy() (err error) {
	if v.dir != "" {
		cores, _ := os.ReadDir(v.dir)
		for _, c := range cores {
			err = errors.Join(err, os.Remove(v.dir+"/"+c.Name()))
		}
		err = errors.Join(err, os.Remove(v.dir))
	}
	if v.group != "" {
		rerr := os.Remove(v.group)
		for end := time.Now().Add(v.patience); errors.Is(rerr, unix.EBUSY) && time.Now().Before(end); rerr = os.Remove(v.group) {
			time.Sleep(time.Millisecond) // a child of the victim's is about to end
		}
		err = errors.Join(err, rerr)
	}
	return err
}

// disinherit ends the child that has lived on, which it must have.
func (v *victimPlan) disinherit() error {
	if v.heir == 0 {
		return nil
	}
	err := unix.Kill(v.heir, 0)
	if err != nil {
		err = fmt.Errorf("its child %d has not lived on: %w", v.heir, err)
	}
	return errors.Join(err, v.stdin.Close())
}

// initMain is the first process of a pid namespace, with a victim in it.
func initMain() {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=victim")
	cmd.Stdin, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stderr, []*os.File{
		os.NewFile(reportFD, "report"), os.NewFile(grantsFD, "grants"), os.NewFile(grantFD, "grant"),
	}
	check(cmd.Run()) // it does not return, but when the test ends
}
