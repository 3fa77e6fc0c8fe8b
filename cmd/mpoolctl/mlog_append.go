package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

type mlogAppendOptions struct {
	sync  bool
	lines bool
}

func newMlogAppend(a *app) *cobra.Command {
	var o mlogAppendOptions
	c := &cobra.Command{
		Use:   "append POOL ID [FILE|-]",
		Short: "Append records to an mlog",
		Long: `Append a file or standard input to an mlog as one record or, with --lines, each
line without its end as a record, in order.

With --sync a record counts when it is durable, and the records that come while
one flush is under way share the next. Without it the log is made durable once,
at the end. Either way exit code 0 means that every record is durable.`,
		Example: `  echo started | mpoolctl mlog append data @journal
  journalctl -f | mpoolctl mlog append data @journal --lines --sync`,
		Args: cobra.RangeArgs(2, 3),
		RunE: a.verb(func(ctx context.Context, args []string) error {
			file := "-"
			if len(args) == 3 {
				file = args[2]
			}
			return o.run(ctx, a, args[0], args[1], file)
		}),
	}
	f := c.Flags()
	f.BoolVar(&o.sync, "sync", false, "make records durable as they come")
	f.BoolVar(&o.lines, "lines", false, "each line is a record")
	return c
}

func (o *mlogAppendOptions) run(ctx context.Context, a *app, pool, id, file string) error {
	if err := checkIDs([]string{id}); err != nil {
		return err
	}
	in, size, err := openInput(ctx, a, file)
	if err != nil {
		return err
	}
	bar := a.newProgress("appending", size)
	var v appended
	err = a.withPool(ctx, pool, func(p api.Pool) error {
		log, err := openLog(ctx, p, id)
		if err != nil {
			return err
		}
		v, err = o.append(ctx, log, in, bar)
		return errors.Join(err, log.Put())
	})
	bar.end()
	if err = errors.Join(err, in.Close()); err != nil {
		if v.Records > 0 {
			a.warn("%s, %d bytes, are durable", plural(int(v.Records), "record"), v.Bytes)
		}
		return err
	}
	return a.print(v)
}

// append appends everything in reads and returns what of it is durable.
func (o *mlogAppendOptions) append(ctx context.Context, log api.Mlog, in io.Reader, bar progress) (appended, error) {
	w, err := log.OpenAppend(ctx)
	if err != nil {
		return appended{}, err
	}
	s := newRecordSender(w, bar)
	if o.lines {
		err = s.sendLines(ctx, in, o.sync)
	} else {
		err = s.sendWhole(ctx, in)
	}
	durable, closeErr := s.close(ctx)
	if err == nil {
		err = closeErr
	}
	return durable, err
}

// openInput opens a file or, for -, standard input. size is -1 if unknown.
func openInput(ctx context.Context, a *app, path string) (in io.ReadCloser, size int64, err error) {
	if path == "-" {
		return io.NopCloser(interruptible(ctx, a.stdin)), -1, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		in, err := openStream(ctx, path)
		return in, -1, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// appended counts records, and their bytes.
type appended struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`
}

func (v appended) show(w io.Writer, quiet bool) error {
	if quiet {
		return nil
	}
	return writeFields(w, "records", strconv.FormatInt(v.Records, 10), "bytes", showBytes(v.Bytes))
}

// readWhole reads a record that is the whole input.
func readWhole(in io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, api.MaxRecord+1))
	if err == nil && len(b) > api.MaxRecord {
		err = errTooLong()
	}
	return b, err
}

func errTooLong() error {
	return api.Errorf(api.EINVAL, "", "a record may have %s at most", formatSize(api.MaxRecord))
}

// readLine reads a line without its end into buf, which may be grown. io.EOF
// comes alone, after the last.
func readLine(in *bufio.Reader, buf []byte) ([]byte, error) {
	line := buf[:0]
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case len(line) > api.MaxRecord+1:
			return nil, errTooLong()
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case err != nil:
			return nil, err
		}
		return line[:len(line)-1], nil
	}
}
