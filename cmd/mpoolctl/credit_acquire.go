package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

// creditAcquire are the options of credit acquire.
type creditAcquire struct {
	mode    accessValue
	of      rangeValue
	try     bool
	timeout time.Duration
}

func newCreditAcquire(a *app) *cobra.Command {
	o := &creditAcquire{mode: accessValue(client.CreditRead)}
	c := &cobra.Command{
		Use:   "acquire POOL ID",
		Short: "Take a credit on an object and hold it until interrupted",
		Long: `Take a credit on an object, print it and hold it until interrupted, with exit code 0
then: for people who look into a wait.

Any number may read what others read, or what one appends to; who writes or deletes
does it alone. What others merely keep for later is called back and goes back at once.
If somebody holds what conflicts, --try fails with EBUSY; else the command waits, with
--timeout no longer than that (ETIMEDOUT). Who holds on is fenced at the daemon's
deadline for call-backs.

That somebody waits for what this command holds is said on stderr, and in a second line
with --json, with the state called_back. If the daemon takes the credit, or goes, the
command fails with ESTALE.`,
		Example: examples(
			"mpoolctl credit acquire data @journal --mode append --try",
			"mpoolctl credit acquire data "+exampleID("mblock")+" --mode write --range 0:64KiB --timeout 10s"),
		Args: cobra.ExactArgs(2),
	}
	f := c.Flags()
	f.Var(&o.mode, "mode", "what for: read, append, write or delete")
	f.Var(&o.of, "range", "on which bytes (default all; append and delete are on all of them anyway)")
	f.BoolVar(&o.try, "try", false, "do not wait for who holds what conflicts")
	f.DurationVar(&o.timeout, "timeout", 0, "wait no longer than `D`, such as 10s")
	c.MarkFlagsMutuallyExclusive("try", "timeout")
	c.RunE = a.verb(func(ctx context.Context, args []string) error {
		if o.timeout < 0 {
			return usagef("--timeout %v: want a duration above 0", o.timeout)
		}
		return a.withCredits(ctx, args[0], args[1], func(d daemon, p client.Credits, id layout.ObjectID) error {
			return a.acquireCredit(ctx, d, p, args[0], id, o)
		})
	})
	return c
}

func (a *app) acquireCredit(ctx context.Context, d daemon, p client.Credits, pool string, id layout.ObjectID, o *creditAcquire) error {
	wait, cancel := ctx, func() {}
	if o.timeout > 0 {
		wait, cancel = context.WithTimeout(ctx, o.timeout)
	}
	hold, err := p.AcquireCredit(wait, id, client.CreditRequest{
		Modes: creditBits(o.mode), Offset: o.of.offset, Length: o.of.length, Try: o.try,
	})
	cancel()
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && (e.Code == api.EBUSY || e.Code == api.ETIMEDOUT) && ctx.Err() == nil {
			e.Holders = o.blockers(ctx, d, pool, id)
		}
		return err
	}
	return a.holdCredit(ctx, hold, pool, id)
}

// blockers are the processes that have what conflicts with what was asked for.
func (o *creditAcquire) blockers(ctx context.Context, d daemon, pool string, id layout.ObjectID) []api.Holder {
	var held []api.Holder
	for c, err := range d.EachCredit(ctx, pool) {
		if err != nil {
			return nil // what was refused is told without
		}
		if c.Object == id && c.PID != int32(os.Getpid()) && c.State != client.CreditWaiting && o.conflicts(&c) {
			held = append(held, api.Holder{PID: c.PID, References: 1})
		}
	}
	return held
}

// conflicts says whether somebody's credit conflicts with what is asked for.
func (o *creditAcquire) conflicts(c *client.CreditInfo) bool {
	const (
		alone = client.CreditWrite | client.CreditDelete
		whole = client.CreditAppend | client.CreditDelete
	)
	m := creditBits(o.mode)
	first, end := uint64(o.of.offset), client.CreditEnd
	switch {
	case m&whole != 0:
		first = 0
	case o.of.length > 0:
		end = first + uint64(o.of.length)
	}
	return c.First < end && first < c.End && ((c.Modes|m)&alone != 0 || c.Modes&m&client.CreditAppend != 0)
}

// heldCredit is what credit acquire needs of a credit.
type heldCredit interface {
	Wanted() <-chan struct{}
	Lost() <-chan struct{}
	Release() error
}

// holdCredit prints a credit and holds it until the context ends.
func (a *app) holdCredit(ctx context.Context, hold *client.Hold, pool string, id layout.ObjectID) error {
	token := hold.Token()
	clear(token[1:]) // the words of this process, which the daemon's lists do not know
	v := creditView{
		Resource: id.String(), Pool: pool, PID: int32(os.Getpid()), UID: uint32(os.Geteuid()), Session: hold.Session(),
		State: "held", Token: token.String(),
	}
	v.Holder = holderName(v.UID, v.PID)
	for i, s := range hold.Credit() {
		if i == 0 {
			v.Mode, v.Range = modeText(s.Modes), rangeText(s.First, s.End)
		}
	}
	out := a.newCreditWriter()
	show := func() error { return errors.Join(out.write(v, v.Resource, v.cells()...), out.flush()) }
	if err := show(); err != nil {
		return errors.Join(err, hold.Release())
	}
	ctx, stop := a.whileRead(ctx)
	defer stop()
	return a.keepCredit(ctx, hold, func() error {
		if !a.json {
			a.note("credit acquire: somebody waits for it")
			return nil
		}
		v.State = "called_back"
		return show()
	})
}

// keepCredit holds a credit until the context ends, which is no error. wanted is
// called when somebody waits for it.
func (a *app) keepCredit(ctx context.Context, hold heldCredit, wanted func() error) error {
	called := hold.Wanted()
	for {
		select {
		case <-called:
			called = nil
			if err := wanted(); err != nil {
				return errors.Join(err, hold.Release())
			}
		case <-hold.Lost():
			//nolint:errcheck // it says the same
			_ = hold.Release()
			return api.Errorf(api.ESTALE, "", "the credit was taken, or the daemon is gone: acquire it anew")
		case <-ctx.Done():
			return followed(ctx, hold.Release())
		}
	}
}
