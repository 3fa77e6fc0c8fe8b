package death

import (
	"context"
	"testing"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/test/daemon"
)

// scene is a daemon with a pool, before a client does something odd.
type scene struct {
	*watch
	mine uint64 // the test's own session: the last before the client's
}

func newScene(t *testing.T, config string) *scene {
	t.Helper()
	drive := daemon.Drive(t, 64<<20)
	d := daemon.Start(t, mpoold, daemon.Options{Config: "[engine]\nloops = 1\n" + config, Profiles: true})
	c, p := d.Pool(poolName, drive, api.CreateOptions{Mode: 0o666})
	startLoop(t, c)
	daemon.Eventually(t, "only the test's own session is there", func() bool { return len(clients(t, c)) == 1 })
	return &scene{watch: newWatch(t, d, c, p), mine: clients(t, c)[0].Session}
}

// startLoop has the daemon start its I/O loop, which stays.
func startLoop(t *testing.T, c *client.Conn) {
	t.Helper()
	q, err := c.NewQueue(context.Background(), client.QueueOptions{Depth: 2})
	if err == nil {
		err = q.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func clients(t *testing.T, c *client.Conn) []client.ClientInfo {
	t.Helper()
	list, err := c.Clients(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// lives fails unless the daemon has exactly one session of the process, with so
// many uncommitted objects.
func (s *scene) lives(pid int32, uncommitted uint32) {
	s.t.Helper()
	var found []client.ClientInfo
	for _, c := range clients(s.t, s.c) {
		if c.PID == pid {
			found = append(found, c)
		}
	}
	if len(found) != 1 || found[0].Uncommitted != uncommitted {
		s.t.Fatalf("sessions of process %d: %+v; want one with %d uncommitted objects", pid, found, uncommitted)
	}
}

// ofSession waits until so many ends of a process's sessions are told, and
// returns them.
func (s *scene) ofSession(pid int32, n int) (list []client.Event) {
	s.t.Helper()
	daemon.Eventually(s.t, "a client's end is told", func() bool {
		list = s.told()
		return len(list) >= n
	})
	for _, e := range list {
		if e.PID != pid || len(list) != n {
			s.t.Fatalf("ends told: %+v; want %d of process %d", list, n, pid)
		}
	}
	return list
}

// told returns the ends of clients that were told since the scene was made.
func (s *scene) told() (list []client.Event) {
	s.t.Helper()
	for e, err := range s.c.Events(context.Background(), client.EventOptions{}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if e.Type == ioctl.EventClientReaped && e.Session > s.mine {
			list = append(list, e)
		}
	}
	return list
}

// reaped waits for the event of a client's end, which there has to be one of,
// and for the end of what the client held.
func (s *scene) reaped(pid int32) client.Event {
	s.t.Helper()
	s.ofSession(pid, 1)
	s.compare(1)
	return s.ofSession(pid, 1)[0]
}

// ended is reaped, of a client that held one pool, one uncommitted mblock and
// nothing else.
func (s *scene) ended(pid int32, cause ioctl.Cause, by ...ioctl.Source) {
	s.t.Helper()
	e := s.reaped(pid)
	ok := len(by) == 0
	for _, b := range by {
		ok = ok || e.DetectedBy == b
	}
	if e.Cause != cause || !ok || e.Aborted != 1 || e.References != 2 {
		s.t.Errorf("%+v; want cause %v, noticed by %v, one uncommitted object and two handles", e, cause, by)
	}
}
