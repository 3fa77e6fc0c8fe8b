package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

type mblockGetOptions struct {
	output   string
	offset   sizeValue
	length   sizeValue
	manifest string
	toEnd    bool // --length was not given
}

func newMblockGet(a *app) *cobra.Command {
	var o mblockGetOptions
	c := &cobra.Command{
		Use:   "get POOL ID...",
		Short: "Read mblocks, or restore files from a manifest",
		Long: `Read mblocks, one after the other, to standard output or to a file; --offset and
--length count in all of them together.

With -o FILE the data is there whole or not at all; FILE.part has it meanwhile.

With --manifest, restore the files of a manifest below the directory -o DIR,
which is made if it is missing; files that are there are overwritten.`,
		Example: `  mpoolctl mblock get data 0100000000000001 -o photo.jpg
  mpoolctl mblock get data @head --offset 1MiB --length 4KiB | xxd
  mpoolctl mblock get data --manifest site.manifest -o /srv/site`,
		Args: cobra.MinimumNArgs(1),
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "-", "write to `FILE`; with --manifest below this directory")
	f.Var(&o.offset, "offset", "begin at this byte")
	f.Var(&o.length, "length", "read this much at most (default to the end)")
	f.StringVar(&o.manifest, "manifest", "", "restore the files of the manifest `FILE` (- for standard input)")
	c.RunE = a.verb(func(ctx context.Context, args []string) error {
		o.toEnd = !f.Changed("length")
		if o.manifest != "" {
			return o.runRestore(ctx, a, args[0], args[1:])
		}
		return o.run(ctx, a, args[0], args[1:])
	})
	return c
}

func (o *mblockGetOptions) run(ctx context.Context, a *app, pool string, ids []string) error {
	if len(ids) == 0 {
		return usagef("which mblock? Give its ID, or --manifest")
	}
	if err := checkIDs(ids); err != nil {
		return err
	}
	return a.withPool(ctx, pool, func(p api.Pool) error {
		out, err := openOutput(a, o.output)
		if err != nil {
			return err
		}
		bytes, err := o.copy(ctx, p, ids, out)
		if err := errors.Join(err, out.close(err == nil)); err != nil || o.output == "-" {
			return err
		}
		return a.print(restored{Files: 1, Bytes: bytes})
	})
}

// copy reads the part asked for of the ids' data and returns how much it was.
func (o *mblockGetOptions) copy(ctx context.Context, p api.Pool, ids []string, out io.Writer) (int64, error) {
	skip, left, done := int64(o.offset), int64(o.length), int64(0)
	buf := make([]byte, getBuffer)
	for _, s := range ids {
		if !o.toEnd && left == 0 {
			return done, nil
		}
		m, err := openMblockByName(ctx, p, s)
		if err != nil {
			return done, err
		}
		r, err := newSteady(ctx, p, m)
		if err == nil {
			begin := min(skip, r.info.Length)
			skip -= begin
			n := r.info.Length - begin
			if !o.toEnd {
				n = min(n, left)
				left -= n
			}
			err = copyMblock(ctx, out, r, begin, n, buf)
			done += n
		}
		if err := errors.Join(err, r.close()); err != nil {
			return done, err
		}
	}
	return done, nil
}

// getBuffer is how much is read at once, in bytes.
const getBuffer = 1 << 20

// copyMblock writes n bytes of m from begin to out.
func copyMblock(ctx context.Context, out io.Writer, m *steady, begin, n int64, buf []byte) error {
	for end := begin + n; begin < end; {
		b := buf[:min(int64(len(buf)), end-begin)]
		got, err := m.readAt(ctx, b, begin)
		if got < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
		begin += int64(got)
	}
	return nil
}

// output is where data goes: standard output or a file. A new regular file
// appears under its name when it is whole.
type output struct {
	io.Writer
	file  *os.File
	final string
}

// dataWriter is the standard output of data.
type dataWriter struct{ a *app }

func (w dataWriter) Write(p []byte) (int, error) {
	w.a.dataWritten = w.a.dataWritten || len(p) > 0
	return w.a.stdout.Write(p)
}

func openOutput(a *app, path string) (*output, error) {
	if path == "-" {
		return &output{Writer: dataWriter{a}}, nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &output{Writer: f, file: f}, err
	}
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	return &output{Writer: f, file: f, final: path}, err
}

func (o *output) close(whole bool) error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	switch {
	case o.final == "":
		return err
	case err == nil && whole:
		return os.Rename(o.file.Name(), o.final)
	default:
		return errors.Join(err, os.Remove(o.file.Name()))
	}
}
