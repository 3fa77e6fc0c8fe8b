package server

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
)

// What follows forces the way without SO_PEERPIDFD.

func withoutPeerPidfd(o *Options) { o.noPeerPidfd = true }

// brief says hello and nothing more, and lets a child inherit the socket.
func brief() {
	conn := try(net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: os.Getenv(childSocket), Net: "unixpacket"}))
	plainAsk(conn, ioctl.OpHello, 1, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=grandchild")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{try(conn.File())}
	check(cmd.Start())
	_ = cmd.Wait() // it ends with the test's pipe
}

// A session ends with its process although the challenge was not over, and a
// child of the process keeps the socket open.
//
// proves S32
func TestFallbackDiesBeforeChallenge(t *testing.T) {
	r := newRig(t, withoutPeerPidfd)
	c := r.child("brief")
	c.expect("stranger got EPERM")
	_, pid, _ := strings.Cut(c.line(), "pid ")
	heir, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	e := r.nextReaped(1)
	if e.PID != int32(c.cmd.Process.Pid) || e.DetectedBy != ioctl.SourcePidfd {
		t.Errorf("%+v", e)
	}
	if err := unix.Kill(heir, 0); err != nil {
		t.Errorf("the child is not there any more: %v", err)
	}
	c.kill()
}

// Processes that are killed at any moment, before they connect included, leave
// nothing behind.
//
// proves S32 S33
func TestFallbackKilledAtAnyMoment(t *testing.T) {
	r := newRig(t, withoutPeerPidfd)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	bystander := r.open(r.dial())
	for i := range 16 {
		c := r.child([]string{"busy", "holder"}[i%2])
		if i%4 < 2 {
			c.expect("ready")
		}
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond) // the moment of its death; any will do
		c.kill()
		if _, err := bystander.Info(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("no session and nothing uncommitted is left", func(p *fakePool) bool {
		for _, o := range p.objects {
			if o.refs != 0 || o.state == api.StateUncommitted {
				return false
			}
		}
		return p.closers == 0 && len(r.srv.all()) == 1
	})
}
