package faults

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/bdev"
	"github.com/mpool-go/mpool/test/faultfs"
)

// answers checks that the daemon answers what needs no drive, and new sessions,
// at once.
func (r *rig) answers() {
	r.t.Helper()
	r.quickly("the daemon's answers", func(ctx context.Context) error {
		c := r.dial()
		pools, err := c.Pools(ctx)
		if err == nil && len(pools) != len(r.pools) {
			r.t.Errorf("%d pools are shown, want %d", len(pools), len(r.pools))
		}
		clients, lerr := c.Clients(ctx, 0)
		if lerr == nil && len(clients) < 2 {
			r.t.Errorf("%d clients are listed, want at least 2", len(clients))
		}
		errs := []error{err, lerr}
		for _, p := range r.pools {
			opened, err := c.OpenPool(ctx, p.name)
			if err != nil {
				return err
			}
			_, ierr := opened.Info(ctx)
			_, rerr := opened.Roots(ctx)
			for _, oerr := range opened.Objects(ctx, api.Filter{}) {
				errs = append(errs, oerr)
			}
			_, serr := c.Stat(ctx, p.name)
			errs = append(errs, ierr, rerr, serr, opened.Close())
		}
		return errors.Join(append(errs, c.Close())...)
	})
}

// quickly fails the test unless f succeeds soon.
func (r *rig) quickly(what string, f func(ctx context.Context) error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, soon)
	defer cancel()
	if err := f(ctx); err != nil {
		r.t.Errorf("%s, which nothing holds up: %v", what, err)
	}
}

// goesOn checks that a pool serves everything at once.
func (r *rig) goesOn(p *pool, o api.AllocOptions) {
	r.t.Helper()
	r.quickly("pool "+p.name, func(ctx context.Context) error {
		l, a, err := p.book.log(ctx, p, o)
		if err != nil {
			return err
		}
		for range 5 {
			m, err := p.book.put(ctx, p, 40_000, o)
			if err != nil {
				return err
			}
			if err := errors.Join(same(ctx, m, p.book.live[m.ID()]), p.book.append(ctx, l.ID(), a), m.Put()); err != nil {
				return err
			}
		}
		return errors.Join(a.Close(ctx), l.Put())
	})
}

// proves S42: while a drive stalls, the clients of another one go on, and the
// daemon answers; who waits for it gives up at his deadline, and what hung is
// done when it goes on.
func TestStall(t *testing.T) {
	t.Parallel()
	for _, code := range []bdev.OpCode{bdev.OpRead, bdev.OpWrite, bdev.OpFlush} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			places(t, func(t *testing.T, loop bool) {
				r := newRig(t, spec{name: "a", capacity: 1, loop: loop}, spec{name: "b", capacity: 1, loop: loop})
				a, b := r.pools[0], r.pools[1]
				old, err := a.book.put(r.ctx, a, 200_000, api.AllocOptions{})
				r.ok(err)
				release := a.drives[0].Stall(faultfs.Stall{Code: code})
				read, wrote := make(chan error, 1), make(chan error, 1)
				go func() { read <- same(r.ctx, old, a.book.live[old.ID()]) }()
				go func() {
					_, err := a.book.put(r.ctx, a, 100_000, api.AllocOptions{})
					wrote <- err
				}()
				a.drives[0].Waiting(t, 1)
				for start := time.Now(); time.Since(start) < *long; time.Sleep(*long / 4) {
					r.goesOn(b, api.AllocOptions{})
					r.answers()
				}
				r.deadline(a, code, old)
				if code == bdev.OpRead {
					r.ok(<-wrote) // a write needs no read
				}
				release()
				r.ok(<-read)
				if code != bdev.OpRead {
					r.ok(<-wrote)
				}
				r.goesOn(a, api.AllocOptions{})
				r.settle()
			})
		})
	}
}

// deadline checks that who waits for a stalled drive gives up in time, and
// knows of nothing done.
//
// proves S46
func (r *rig) deadline(p *pool, code bdev.OpCode, old api.Mblock) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	var err error
	if code == bdev.OpRead {
		err = same(ctx, old, p.book.live[old.ID()])
	} else {
		_, err = p.book.put(ctx, p, 4096, api.AllocOptions{})
	}
	r.want(err, api.ETIMEDOUT, api.EUNKNOWN)
	if took := time.Since(start); took > soon {
		r.t.Errorf("a deadline of 100 ms took %v", took)
	}
}

// proves S42: SIGTERM while a drive stalls: the daemon gives up what hangs and
// is at its end in its time, which others look at. (The kernel lets it go when its operation
// has ended.)
func TestStopDuringStall(t *testing.T) {
	t.Parallel()
	for _, code := range []bdev.OpCode{bdev.OpRead, bdev.OpWrite, bdev.OpFlush} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, spec{name: "a", capacity: 1, loop: true}, spec{name: "b", capacity: 1})
			a := r.pools[0]
			old, err := a.book.put(r.ctx, a, 200_000, api.AllocOptions{})
			r.ok(err)
			_, err = r.pools[1].book.put(r.ctx, r.pools[1], 200_000, api.AllocOptions{})
			r.ok(err)
			a.drives[0].Stall(faultfs.Stall{Code: code})
			ended := make(chan error, 1)
			go func() {
				if code == bdev.OpRead {
					ended <- same(r.ctx, old, a.book.live[old.ID()])
					return
				}
				_, err := a.book.put(r.ctx, a, 100_000, api.AllocOptions{})
				ended <- err
			}()
			a.drives[0].Waiting(t, 1)
			start := time.Now()
			r.ok(r.daemon.cmd.Process.Signal(syscall.SIGTERM))
			if err := <-ended; err == nil {
				t.Error("what hangs has succeeded")
			}
			for !strings.Contains(r.daemon.log.String(), "msg=stopped") && !r.daemon.ended() {
				if time.Since(start) > stopTime {
					t.Fatalf("after %v the daemon has not stopped", time.Since(start))
				}
				time.Sleep(10 * time.Millisecond) // polls; nothing depends on its length
			}
			t.Logf("stopped after %v", time.Since(start))
			if _, err := os.Lstat(r.socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its socket is still there: %v", err)
			}
			r.settle()
		})
	}
}
