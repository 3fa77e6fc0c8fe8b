package powercut

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
	"sync"
	"syscall"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	testdaemon "github.com/mpool-go/mpool/test/daemon"
)

// clientVariable makes the test's program a client; its value is the client's
// number.
const clientVariable = "MPOOL_POWERCUT_CLIENT"

// workersEach is how many ledgers a client process has.
const workersEach = 3

// patience bounds every wait. It decides only how long a test that fails takes.
const patience = 3 * time.Minute

// order is what a client is told to do, result what it says when it begins, which
// is empty, and when it is done.
type (
	order struct {
		Verify       bool // else: work until the drives are gone
		Socket, Pool string
	}
	result struct {
		Wrong string // a promise that was not kept
		Acked int    // changes that were acknowledged since the last order
	}
)

// play is a client process's main function.
func play(number string) {
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		panic(err)
	}
	var ledgers []*ledger
	for i := range uint64(workersEach) {
		ledgers = append(ledgers, newLedger(1+n*workersEach+i))
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			panic(err)
		}
		r := obey(&o, ledgers, func() {
			if err := out.Encode(&result{}); err != nil {
				panic(err)
			}
		})
		if err := out.Encode(&r); err != nil {
			panic(err)
		}
	}
}

// obey does what it is told with a connection of its own, and calls ready before
// it begins. That nobody answers is wrong only when it is to verify: the daemon
// may be gone at any moment else.
func obey(o *order, ledgers []*ledger, ready func()) (r result) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{Socket: o.Socket, Reconnect: -1})
	if err == nil {
		defer func() { _ = c.Close() }() // the daemon may be gone
		var p api.Pool
		if p, err = c.OpenPool(ctx, o.Pool); err == nil {
			ready()
			err = together(ctx, p, o, ledgers)
			if _, wrong := errors.AsType[*broken](err); !wrong && !o.Verify {
				err = nil
			}
			return took(ctx, ledgers, err)
		}
	}
	ready()
	if o.Verify {
		r.Wrong = err.Error()
	}
	return r
}

// together lets all workers do what the order says.
func together(ctx context.Context, p api.Pool, o *order, ledgers []*ledger) error {
	errs := make([]error, len(ledgers))
	var wg sync.WaitGroup
	for i, l := range ledgers {
		w := &worker{l, ctx, p}
		do := w.work
		if o.Verify {
			do = w.verify
		}
		wg.Go(func() { errs[i] = do() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// took makes the result of what was done.
func took(ctx context.Context, ledgers []*ledger, err error) (r result) {
	for _, l := range ledgers {
		r.Acked += l.acked
		l.acked = 0
	}
	if err != nil {
		r.Wrong = err.Error()
	}
	if ctx.Err() != nil {
		r.Wrong += fmt.Sprintf("; it has not ended in %v", patience)
	}
	return r
}

// child is a client process.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
	log testdaemon.Buffer
}

func startChild(number int) (*child, error) {
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), clientVariable+"="+strconv.Itoa(number))
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Stderr = &c.log
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.enc, c.dec = in, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return c, c.cmd.Start()
}

// tell gives an order and waits until the client begins; hear waits for the result.
func (c *child) tell(o order) error {
	if err := c.enc.Encode(&o); err != nil {
		return err
	}
	_, err := c.hear()
	return err
}

func (c *child) hear() (r result, err error) {
	if err := c.dec.Decode(&r); err != nil {
		return r, fmt.Errorf("a client has ended: %w\n%s", err, c.log.String())
	}
	if r.Wrong != "" {
		return r, errors.New(r.Wrong)
	}
	return r, nil
}

// end lets the client end and waits for it.
func (c *child) end() error {
	err := c.in.Close()
	return errors.Join(err, c.cmd.Wait())
}
