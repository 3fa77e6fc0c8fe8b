package exitwatch

import (
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/uhandle"
)

// A process that gets the number of one that is watched still, because nobody
// noticed its death, is another: neither is told of the other's end.
//
// proves S32
// proves S34
func TestNumberGivenAgain(t *testing.T) {
	s := open(t, Options{})
	for range 3 {
		if numberGivenAgain(t, s) {
			return
		}
	}
	t.Error("others were always quicker to get the number")
}

// numberGivenAgain returns false if somebody else got the number.
func numberGivenAgain(t *testing.T, s *Source) bool {
	t.Helper()
	old := start(t, "wait")
	gone := watchIt(t, s, old.p)
	defer gone.stop()
	s.detach(t)
	old.signal(unix.SIGKILL)
	old.wait()
	if err := s.attach(); err != nil {
		t.Fatal(err)
	}
	pid := old.cmd.Process.Pid
	v := victimOf(t, "again", strconv.Itoa(pid))
	v.start()
	if line, err := v.out.ReadString('\n'); line != "ready\n" {
		var e *exec.ExitError
		if werr := v.cmd.Wait(); errors.As(werr, &e) && e.ExitCode() == 96 {
			return false
		}
		t.Fatalf("%q, %v", line, err)
	}
	p := v.process(pid)
	if p.Inode() == old.p.Inode() {
		t.Fatalf("two processes with the number %d are both %d", pid, p.Inode())
	}
	n := watchIt(t, s, p)
	v.tell()
	if got := n.death(); got.Cause != uhandle.CauseExit || got.Code != 6 {
		t.Errorf("%+v", got)
	}
	gone.none(s)
	n.stop()
	return true
}

// detach takes the program from the tracepoint, as the kernel does when nobody
// has its link any more.
func (s *Source) detach(t *testing.T) {
	t.Helper()
	if err := s.link.Close(); err != nil {
		t.Fatal(err)
	}
}
