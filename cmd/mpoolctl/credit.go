package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/layout"
)

func newCredit(a *app) *cobra.Command {
	return noun("credit", "Who may do what to an object now",
		newCreditList(a), newCreditAcquire(a), newCreditRelease(a), newCreditRevoke(a))
}

// creditModes are the modes of a credit on an object, by their bits.
var creditModes = [...]struct {
	name string
	bit  creditBits
}{
	{"read", client.CreditRead},
	{"append", client.CreditAppend},
	{"write", client.CreditWrite},
	{"delete", client.CreditDelete},
}

func creditModeNames() []string {
	var names []string
	for _, x := range creditModes {
		names = append(names, x.name)
	}
	return names
}

type creditBits = client.CreditModes

// modeText writes modes, such as "read+append".
func modeText(m creditBits) string {
	var names []string
	for _, x := range creditModes {
		if m&x.bit != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, "+")
}

// accessValue is a flag that holds the mode of a credit.
type accessValue creditBits

func (v *accessValue) String() string { return modeText(creditBits(*v)) }

func (v *accessValue) Set(s string) error {
	for _, x := range creditModes {
		if s == x.name {
			*v = accessValue(x.bit)
			return nil
		}
	}
	return fmt.Errorf("mode %q: want read, append, write or delete", s)
}

func (v *accessValue) Type() string { return "MODE" }

// rangeValue is a flag that holds a range of bytes; length 0: to the end.
type rangeValue struct{ offset, length int64 }

func (v *rangeValue) String() string { return "" }

func (v *rangeValue) Set(s string) error {
	off, length, ok := strings.Cut(s, ":")
	var r rangeValue
	var err error
	if !ok {
		return fmt.Errorf("range %q: want OFFSET:LENGTH, or OFFSET: for all from there on", s)
	}
	if r.offset, err = parseSize(off); err != nil {
		return err
	}
	if length != "" {
		if r.length, err = parseSize(length); err != nil {
			return err
		}
		if r.length == 0 {
			return fmt.Errorf("range %q: of no bytes", s)
		}
	}
	if r.offset+r.length < 0 {
		return fmt.Errorf("range %q: it ends above 2^63", s)
	}
	*v = r
	return nil
}

func (v *rangeValue) Type() string { return "OFF:LEN" }

// rangeText writes a range as the flag reads it.
func rangeText(first, end uint64) string {
	if end == client.CreditEnd {
		return fmt.Sprintf("%d:", first)
	}
	return fmt.Sprintf("%d:%d", first, end-first)
}

// creditView is a credit as it is shown.
type creditView struct {
	Resource string  `json:"resource"` // the object's id
	Pool     string  `json:"pool"`
	Holder   string  `json:"holder"` // client:UID/PID, as scopes have it
	PID      int32   `json:"pid"`
	UID      uint32  `json:"uid"`
	Session  uint64  `json:"session"`
	Mode     string  `json:"mode"`
	Range    string  `json:"range"`
	State    string  `json:"state"`
	Token    string  `json:"token"`
	Expires  *string `json:"expires"` // null: not called back, or for ever
}

func newCreditView(pool string, c *client.CreditInfo) creditView {
	v := creditView{
		Resource: c.Object.String(), Pool: pool, Holder: holderName(c.UID, c.PID), PID: c.PID, UID: c.UID,
		Session: c.Session, Mode: modeText(c.Modes), Range: rangeText(c.First, c.End), State: c.State.String(),
	}
	if c.State != client.CreditWaiting {
		v.Token = c.Token.String()
	}
	if !c.Expires.IsZero() {
		s := formatTime(c.Expires)
		v.Expires = &s
	}
	return v
}

// holderName names a process as scopes do.
func holderName(uid uint32, pid int32) string { return fmt.Sprintf("client:%d/%d", uid, pid) }

func (v creditView) cells() []any {
	expires := "-"
	if v.Expires != nil {
		expires = *v.Expires
	}
	return []any{v.Pool, v.Holder, v.Mode, v.Range, v.State, cmp.Or(v.Token, "-"), expires}
}

// creditWriter writes credits.
func (a *app) newCreditWriter() *rowWriter {
	return newRowWriter(a, "%-16v  %-12s  %-20s  %-11s  %-16s  %-11s  %-8s  %s",
		"OBJECT", "POOL", "HOLDER", "MODE", "RANGE", "STATE", "TOKEN", "EXPIRES")
}

// creditsView is a list of credits that is printed at once.
type creditsView []creditView

func (v creditsView) show(w io.Writer, quiet bool) error {
	for _, c := range v {
		line := c.Resource
		if !quiet {
			line = fmt.Sprintf("%s of %s: %s %s, from %s", c.Resource, c.Pool, c.Mode, c.Range, c.Holder)
		}
		if err := writeLines(w, line); err != nil {
			return err
		}
	}
	return nil
}

// creditsOn returns the credits on one object.
func creditsOn(ctx context.Context, d daemon, pool string, id layout.ObjectID) ([]creditView, error) {
	var list []creditView
	for c, err := range d.EachCredit(ctx, pool) {
		if err != nil {
			return nil, err
		}
		if c.Object == id {
			list = append(list, newCreditView(pool, &c))
		}
	}
	return list, nil
}

// withCredits calls f with a pool that takes credits, and with the id of one of its
// objects.
func (a *app) withCredits(ctx context.Context, pool, object string, f func(d daemon, p client.Credits, id layout.ObjectID) error) error {
	if err := checkIDs([]string{object}); err != nil {
		return err
	}
	a.credits = &client.CreditOptions{Cached: -1}
	return a.withDaemon(ctx, func(d daemon) error {
		p, err := d.OpenPool(ctx, pool)
		if err != nil {
			return err
		}
		c, ok := p.(client.Credits)
		if !ok {
			return errors.Join(api.Errorf(api.ENOTSUP, "", "the pool has no credits"), p.Close())
		}
		id, err := objectID(ctx, p, object)
		if err == nil {
			err = f(d, c, id)
		}
		if closeErr := p.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}
