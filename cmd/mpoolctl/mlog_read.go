package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// followInterval is how often --follow looks for new records.
const followInterval = 50 * time.Millisecond

type mlogReadOptions struct {
	from   countValue
	count  countValue
	follow bool
	raw    bool
	all    bool // --count was not given
}

func newMlogRead(a *app) *cobra.Command {
	var o mlogReadOptions
	c := &cobra.Command{
		Use:   "read POOL ID",
		Short: "Print the records of an mlog",
		Long: `Print the records of an mlog, each followed by a line end; on a terminal control
characters are shown as dots. With --json, one object per record and line:
"text" has the record if it is UTF-8, else "base64" has it.`,
		Example: `  mpoolctl mlog read data @journal --from 1000 --count 10
  mpoolctl mlog read data @journal --follow`,
		Args: cobra.ExactArgs(2),
	}
	f := c.Flags()
	f.Var(&o.from, "from", "begin with record `N`; the first is 0")
	f.Var(&o.count, "count", "print `N` records at most (default all)")
	f.BoolVarP(&o.follow, "follow", "f", false, "wait for more records until interrupted")
	f.BoolVar(&o.raw, "raw", false, "print the records' bytes only, with nothing between them")
	c.RunE = a.verb(func(ctx context.Context, args []string) error {
		o.all = !f.Changed("count")
		return o.run(ctx, a, args[0], args[1])
	})
	return c
}

func (o *mlogReadOptions) run(ctx context.Context, a *app, pool, id string) error {
	if err := checkIDs([]string{id}); err != nil {
		return err
	}
	err := a.withPool(ctx, pool, func(p api.Pool) error {
		log, err := openLog(ctx, p, id)
		if err != nil {
			return err
		}
		r, err := log.OpenRead(ctx)
		if err != nil {
			return errors.Join(err, log.Put())
		}
		out := &recordWriter{
			w: bufio.NewWriterSize(a.stdout, 1<<16), json: a.json, raw: o.raw, escape: a.terminal(a.stdout),
		}
		err = errors.Join(o.copy(ctx, a, r, out), out.w.Flush())
		back := errors.Join(r.Close(), log.Put())
		if errors.Is(err, api.ESTALE) {
			return err // so are the handles
		}
		return errors.Join(err, back)
	})
	if o.follow && ctx.Err() != nil && errors.Is(err, api.ECANCELED) {
		return nil // an interrupt is how following ends
	}
	return err
}

// copy prints records until the end, the count, or for ever.
func (o *mlogReadOptions) copy(ctx context.Context, a *app, r api.LogReader, out *recordWriter) error {
	if err := o.seek(ctx, r); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	anew := false // it was rewound just now
	for printed := uint64(0); o.all || printed < uint64(o.count); {
		number := r.Record()
		n, err := r.Next(ctx, buf)
		rewound := anew
		anew = false
		if rewound && !errors.Is(err, api.ESTALE) {
			a.note("the log was erased; reading on from its first record")
		}
		switch {
		case err == nil:
			if err := out.write(number, buf[:n]); err != nil {
				return err
			}
			printed++
		case errors.Is(err, api.EOVERFLOW):
			buf = make([]byte, wanted(err, len(buf)))
		case errors.Is(err, io.EOF) && o.follow:
			if err := out.w.Flush(); err != nil {
				return err
			}
			if err := wait(ctx, followInterval); err != nil {
				return err
			}
		case errors.Is(err, api.ESTALE) && o.follow && !rewound: // again: the reader was fenced
			r.Rewind()
			anew = true
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
	return nil
}

// seek goes to the first record asked for. One that is yet to come is waited
// for when following.
func (o *mlogReadOptions) seek(ctx context.Context, r api.LogReader) error {
	if o.from == 0 {
		return nil
	}
	for {
		err := r.Seek(ctx, uint64(o.from))
		if !o.follow || !errors.Is(err, api.ENOENT) {
			return err
		}
		if err := wait(ctx, followInterval); err != nil {
			return err
		}
	}
}

// wanted is the buffer's size that an EOVERFLOW asks for.
func wanted(err error, have int) int64 {
	var e *api.Error
	if errors.As(err, &e) && e.Want > int64(have) {
		return e.Want
	}
	return api.MaxRecord
}

// wait waits for d or for the context's end.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// recordWriter prints records.
type recordWriter struct {
	w         *bufio.Writer
	json, raw bool
	escape    bool // for a terminal
}

// recordView is a record as --json shows it.
type recordView struct {
	Record uint64  `json:"record"`
	Length int     `json:"length"`
	Text   *string `json:"text,omitempty"`
	Base64 []byte  `json:"base64,omitempty"`
}

func (w *recordWriter) write(number uint64, record []byte) error {
	if w.json {
		v := recordView{Record: number, Length: len(record)}
		if utf8.Valid(record) {
			text := string(record)
			v.Text = &text
		} else {
			v.Base64 = record
		}
		enc := json.NewEncoder(w.w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	if w.escape && !w.raw {
		record = printable(record)
	}
	if _, err := w.w.Write(record); err != nil || w.raw {
		return err
	}
	return w.w.WriteByte('\n')
}

// printable makes a record safe for a terminal.
func printable(record []byte) []byte {
	out := make([]byte, 0, len(record))
	for len(record) > 0 {
		r, n := utf8.DecodeRune(record)
		if r != '\t' && (r == utf8.RuneError || !unicode.IsPrint(r)) {
			out = append(out, '.')
		} else {
			out = append(out, record[:n]...)
		}
		record = record[n:]
	}
	return out
}
