package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/uhandle"
)

// childEnds says how a leaver is to end.
const childEnds = "MPOOL_SERVER_TEST_ENDS"

// leaver has a session and an uncommitted mblock, and ends as it is told.
func leaver() {
	c, p := childDial()
	try(p.AllocMblock(context.Background(), api.AllocOptions{Capacity: 1}))
	fmt.Println("ready")
	try(os.Stdin.Read(make([]byte, 1)))
	switch how := os.Getenv(childEnds); how {
	case "close":
		check(c.Close())
		fmt.Println("closed")
		forever()
	case "exec":
		check(syscall.Exec("/bin/sh", []string{"sh", "-c", "echo executed; cat >/dev/null"}, nil))
	default:
		if n, err := strconv.Atoi(how); err == nil {
			os.Exit(n)
		}
		sig := map[string]syscall.Signal{"kill": unix.SIGKILL, "term": unix.SIGTERM}[how]
		signal.Reset(sig)
		check(unix.Kill(os.Getpid(), sig))
		forever()
	}
}

// How a client ended is told: by its exit code, its signal, or that it has
// left and lives.
//
// proves S33
func TestHowTheyEnded(t *testing.T) {
	for _, c := range []struct {
		how  string
		says string // when it has left and lives
		want ioctl.Event
	}{
		{"0", "", ioctl.Event{Cause: ioctl.CauseExit}},
		{"7", "", ioctl.Event{Cause: ioctl.CauseExit, Code: 7}},
		{"kill", "", ioctl.Event{Cause: ioctl.CauseSignal, Signal: 9}},
		{"term", "", ioctl.Event{Cause: ioctl.CauseSignal, Signal: 15}},
		{"close", "closed", ioctl.Event{Cause: ioctl.CauseClosed}},
		{"exec", "executed", ioctl.Event{Cause: ioctl.CauseClosed}},
	} {
		for name, fallback := range map[string]bool{"peerpidfd": false, "challenge": true} {
			t.Run(c.how+", "+name, func(t *testing.T) {
				r := newRig(t, func(o *Options) { o.noPeerPidfd = fallback }, tellsAll)
				t.Setenv(childEnds, c.how)
				k := r.child("leaver")
				k.expect("ready")
				if _, err := k.in.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if c.says != "" {
					k.expect(c.says)
				}
				e := r.nextReaped(1)
				if e.Cause != c.want.Cause || e.Code != c.want.Code || e.Signal != c.want.Signal || e.Core {
					t.Errorf("%v code %d signal %d core %v, want %+v", e.Cause, e.Code, e.Signal, e.Core, c.want)
				}
				if e.DetectedBy != ioctl.SourceSocket && (e.DetectedBy != ioctl.SourcePidfd || c.says != "") {
					t.Errorf("noticed by %v", e.DetectedBy)
				}
				if e.PID != int32(k.cmd.Process.Pid) || e.Aborted != 1 || e.References != 2 || e.Comm == "" {
					t.Errorf("%+v", e)
				}
				r.checkCommitted(0)
			})
		}
	}
}

// execer gives its session to the program that it becomes.
func execer() {
	conn := try(net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: os.Getenv(childSocket), Net: "unixpacket"}))
	plainAsk(conn, ioctl.OpHello, 1, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
	fd := try(unix.Dup(int(try(conn.File()).Fd()))) // which exec does not close
	check(os.Setenv(childEnv, "executed"))
	check(os.Setenv(childEnds, strconv.Itoa(fd)))
	check(syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ()))
}

// executed is what an execer becomes.
func executed() {
	conn := try(net.FileConn(os.NewFile(uintptr(try(strconv.Atoi(os.Getenv(childEnds)))), "socket"))).(*net.UnixConn)
	_, code := plainAsk(conn, ioctl.OpVersion, 2, &ioctl.Empty{})
	fmt.Println("executed got", code)
	forever()
}

// A process that keeps its socket across exec keeps its session: it is the same
// process.
//
// proves S32
func TestExecKeepsSession(t *testing.T) {
	for name, fallback := range map[string]bool{"peerpidfd": false, "challenge": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.noPeerPidfd = fallback })
			k := r.child("execer")
			k.expect("executed got E0")
			if n := len(r.srv.all()); n != 1 {
				t.Errorf("%d sessions", n)
			}
			k.kill()
			if e := r.nextReaped(1); e.Cause != ioctl.CauseSignal || e.PID != int32(k.cmd.Process.Pid) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// A process's name is its own choice; what is shown of it is printable.
func TestPrintableNames(t *testing.T) {
	for name, want := range map[string]string{
		"mpoolctl": "mpoolctl", "": "", "a b)": "a b)", "\x1b[2J\n": "?[2J?", "caf\xe9": "caf?", "日本": "日本",
	} {
		if got := printable(name); got != want {
			t.Errorf("%q is shown as %q, want %q", name, got, want)
		}
	}
}

// early is a source of news that a test tells.
type early struct{ died chan func(uhandle.Death) }

func (early) Name() string { return "bpf" }

func (e early) Watch(_ *uhandle.Process, died func(uhandle.Death)) (func(), error) {
	e.died <- died
	return func() {}, nil
}

// The source that notices first is told, with what it knows; the others find it
// done.
//
// proves S34
func TestEarlierSource(t *testing.T) {
	bpf := early{make(chan func(uhandle.Death), 1)}
	r := newRig(t, func(o *Options) { o.Deaths = []uhandle.Source{bpf} }, tellsAll)
	k := r.child("holder")
	k.expect("ready")
	(<-bpf.died)(uhandle.Death{Cause: uhandle.CauseSignal, Signal: 11, Core: true})
	e := r.nextReaped(1)
	if e.DetectedBy != ioctl.SourceBPF || e.Cause != ioctl.CauseSignal || e.Signal != 11 || !e.Core || e.Aborted != 2 {
		t.Errorf("%+v", e)
	}
	k.kill()
	time.Sleep(20 * time.Millisecond) // for a second event, which must not come
	if list, _ := r.reaped(); len(list) != 1 {
		t.Errorf("%d events", len(list))
	}
}

// What was dead before its session began has none for long.
//
// proves S32
func TestDeadBeforeAccept(t *testing.T) {
	for name, fallback := range map[string]bool{"peerpidfd": false, "challenge": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.noPeerPidfd = fallback })
			l, err := Listen(r.socket+"2", 0o666)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(childSocket, l.claim.path)
			k := r.child("goner")
			k.expect("sent")
			k.kill()
			served := make(chan error, 1)
			go func() { served <- r.srv.Serve(l) }()
			// The next one that is accepted comes after it.
			conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: l.claim.path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			w := &raw{t: t, conn: conn}
			w.ok(ioctl.OpHello, &ioctl.Hello{MinVersion: 1, MaxVersion: 1})
			for end := time.Now().Add(inVain); len(r.srv.all()) > 1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("a dead process has a session")
				}
			}
			r.eventually("nothing is held", func(p *fakePool) bool { return len(p.objects) == 0 })
		})
	}
}

// goner sends all that it has to say before anybody listens.
func goner() {
	conn := try(net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: os.Getenv(childSocket), Net: "unixpacket"}))
	for tag, m := range []ioctl.Message{
		&ioctl.Hello{MinVersion: 1, MaxVersion: 1}, &ioctl.PoolName{Name: "data"}, &ioctl.Empty{},
	} {
		op := []ioctl.Op{ioctl.OpHello, ioctl.OpPoolOpen, ioctl.OpVersion}[tag]
		try(conn.Write(try(ioctl.Append(nil, ioctl.Header{Op: op, Tag: uint64(tag)}, m))))
	}
	fmt.Println("sent")
	forever()
}

// untold holds up who logs that a session was reaped, which comes before its event.
type untold struct {
	slog.Handler
	hold <-chan struct{}
}

func (h untold) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Message == "session reaped" {
		<-h.hold
	}
	return h.Handler.Handle(ctx, rec)
}

// The memory of the dead does not wait until how they ended is told.
//
// proves S33
func TestArenasDoNotWaitForTheCause(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, func(o *Options) { o.Logger = slog.New(untold{o.Logger.Handler(), hold}) })
	w := r.raw()
	w.arena(1 << 20)
	w.conn.Close()
	until(t, "the arena is given back", func() bool { return r.srv.arenaBytes.Load() == 0 })
	if list, _ := r.reaped(); len(list) != 0 {
		t.Errorf("told %+v", list)
	}
	close(hold)
	r.nextReaped(1)
}

// The creation of a container by the dead does not wait for a drive that hangs, and
// leaves nothing.
//
// proves S33 S42
func TestContainerOfTheDead(t *testing.T) {
	r := newRig(t)
	asked := make(chan struct{})
	goOn := r.stalled(false, func(op string) bool {
		if op == "mdc create" {
			close(asked)
		}
		return op == "mdc create"
	})
	t.Cleanup(goOn)
	w := r.raw()
	w.send(ioctl.Header{Op: ioctl.OpMDCCreate, Tag: 99}, &ioctl.Alloc{Pool: w.openPool(), Options: api.AllocOptions{Capacity: 1 << 20}})
	<-asked
	w.conn.Close()
	r.nextReaped(1)
	until(t, "its request has ended", func() bool { return len(r.srv.all()) == 0 })
	r.eventually("nothing is left", func(p *fakePool) bool { return len(p.objects) == 0 })
}
