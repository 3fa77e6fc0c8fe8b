package credits

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/credit"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
	"github.com/mpool-go/mpool/test/daemon"
)

const (
	poolName  = "credits"
	envSocket = "MPOOL_CREDITS_SOCKET"
)

var (
	mpoold string // the daemon's binary, built by TestMain
	ctx    = context.Background()
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(envSocket); socket != "" {
		var err error
		storms, reads := os.Getenv(envStorm), os.Getenv(envReads)
		switch {
		case storms != "":
			err = storm(socket, storms)
		case reads != "":
			err = stream(socket, reads)
		default:
			err = obey(socket)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(daemon.Main(m, raceDetector, &mpoold))
}

// order is what a process is told to do.
type order struct {
	Verb       string // acquire, release, valid; or an operation
	ID         layout.ObjectID
	Mode       credit.Modes
	First, End uint64
	Try        bool
	Not        credit.Flags  // what may not be done for it
	Within     time.Duration // until when it waits; 0: for ever
	Slot       int           // where the hold is kept
	Handle     ioctl.Handle
	Data       []byte
}

// outcome is what came of it.
type outcome struct {
	Code   string // of the error; "": none
	Text   string
	Handle ioctl.Handle
	ID     layout.ObjectID
	Token  credit.Token
	Valid  bool
	N      int
}

// obey is a process: it does what it reads from its standard input, one thing
// after another.
func obey(socket string) error {
	w, err := dialWire(socket, poolName)
	if err != nil {
		return err
	}
	holds := make([]*credit.Hold, 16)
	out := json.NewEncoder(os.Stdout)
	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) { // the test is over
			w.end()
			return nil
		} else if err != nil {
			return err
		}
		r := do(w, holds, &o)
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func do(w *wire, holds []*credit.Hold, o *order) outcome {
	var r outcome
	var err error
	target := &ioctl.Target{Handle: o.Handle}
	find := &ioctl.Find{Pool: w.pool, ID: o.ID}
	switch o.Verb {
	case "acquire":
		holds[o.Slot], err = w.acquireFor(o)
		if err == nil {
			r.Token = holds[o.Slot].Token()
		}
	case "give back":
		w.owner.GiveBack(objectOf(o.ID), credit.Make(credit.Span{First: o.First, End: o.End, Modes: o.Mode}))
	case "wind up":
		err = w.owner.Close(ctx)
	case "wanted":
		select {
		case <-holds[o.Slot].Wanted():
			r.Valid = true
		default:
		}
	case "release":
		err = holds[o.Slot].Release(credit.Version{})
	case "lost": // waits until it is told so
		select {
		case <-holds[o.Slot].Lost():
		case <-time.After(daemon.Patience):
			err = errors.New("nobody says so")
		}
	case "valid":
		r.Valid = holds[o.Slot].Valid()
	case "alloc":
		r.Handle, r.ID, err = w.open(ioctl.OpMblockAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 4096}})
	case "alloc log":
		r.Handle, r.ID, err = w.open(ioctl.OpMlogAlloc, &ioctl.Alloc{Pool: w.pool, Options: api.AllocOptions{Capacity: 65536}})
	case "find":
		r.Handle, _, err = w.open(ioctl.OpMblockFind, find)
	case "find log":
		r.Handle, _, err = w.open(ioctl.OpMlogFind, find)
	case "open":
		r.Handle, _, err = w.open(ioctl.OpMlogOpenAppend, target)
	case "append":
		_, err = w.ask(ioctl.OpAppend, &ioctl.AppendRecord{To: o.Handle, Sync: true, Data: ioctl.InlinePayload(o.Data)})
	case "write":
		_, err = w.ask(ioctl.OpMblockWrite, &ioctl.MblockWrite{Mblock: o.Handle, Total: uint64(len(o.Data)), Data: ioctl.InlinePayload(o.Data)})
	case "commit":
		_, err = w.ask(ioctl.OpObjectCommit, target)
	case "delete":
		_, err = w.ask(ioctl.OpObjectDelete, target)
	case "leave":
		w.left.Store(true)
		_, err = w.ask(ioctl.OpClose, &ioctl.Target{Handle: w.pool})
	case "close":
		_, err = w.ask(ioctl.OpClose, target)
	case "ring acquire", "ring release", "ring open", "ring append", "ring stream", "ring alloc", "ring write", "ring commit", "ring read":
		if w.library == nil {
			w.library, err = newLibrary(os.Getenv(envSocket))
		}
		if err == nil {
			err = w.library.do(o, &r)
		}
	case "revoke":
		_, err = w.ask(ioctl.OpCreditRevoke, find)
	default:
		err = fmt.Errorf("no verb %q", o.Verb)
	}
	if err != nil {
		r.Text = err.Error()
		if c, ok := errors.AsType[credit.Code](err); ok {
			r.Code = c.Error()
		} else {
			r.Code = api.CodeOf(err).Error()
		}
	}
	return r
}

func (w *wire) acquireFor(o *order) (*credit.Hold, error) {
	limited := ctx
	if o.Within > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, o.Within)
		defer cancel()
	}
	r := request(o.ID, o.Mode, o.First, o.End, 0)
	if r.Flags &^= o.Not; o.Try {
		r.Flags |= credit.Try
	}
	return w.owner.Acquire(limited, r)
}

// process is one that obeys.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

func start(t *testing.T, d *daemon.Daemon) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), envSocket+"="+d.Socket)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.enc, p.dec = json.NewEncoder(p.in), json.NewDecoder(bufio.NewReader(out))
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop stops a process, and waits until none of its threads runs: until then they may
// answer what comes.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		p.t.Fatal(err)
	}
}

// begin gives an order.
func (p *process) begin(o order) {
	p.t.Helper()
	if o.End == 0 {
		o.End = credit.End
	}
	if err := p.enc.Encode(o); err != nil {
		p.t.Fatal(err)
	}
}

// result waits for what came of an order.
func (p *process) result() outcome {
	p.t.Helper()
	var r outcome
	over := time.AfterFunc(daemon.Patience, p.kill)
	defer over.Stop()
	if err := p.dec.Decode(&r); err != nil {
		p.t.Fatalf("a process: %v", err)
	}
	return r
}

func (p *process) do(o order) outcome {
	p.t.Helper()
	p.begin(o)
	return p.result()
}

// ok is do for what is to succeed.
func (p *process) ok(o order) outcome {
	p.t.Helper()
	r := p.do(o)
	if r.Code != "" {
		p.t.Fatalf("%+v: %s: %s", o, r.Code, r.Text)
	}
	return r
}

// fails is do for what is to fail.
func (p *process) fails(code error, o order) outcome {
	p.t.Helper()
	r := p.do(o)
	want := code.Error()
	if r.Code != want {
		p.t.Fatalf("%+v: %q, %s, want %s", o, r.Code, r.Text, want)
	}
	return r
}
