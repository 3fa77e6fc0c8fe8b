package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
)

// benchOptions are what changes a row; zero values leave it as it is.
type benchOptions struct {
	size       sizeValue
	depth      countValue
	data       sizeValue
	time       time.Duration
	async      bool
	zeroCopy   bool
	sequential bool
	noSync     bool
}

// Bounds of the options.
const (
	benchMaxDepth  = 1024
	benchMaxMemory = 1 << 30 // of all operations in flight, in bytes
)

// benchCase is something to measure.
type benchCase struct {
	row        string
	work       string // read, write, append or commit
	size       int64  // bytes of an operation
	depth      int    // operations in flight
	sequential bool   // reads in their order
}

// benchRows are the rows by name. Those of docs/performance.md are what its
// figures are measured with.
func benchRows() map[string][]benchCase {
	const kib, mib = 1 << 10, 1 << 20
	return map[string][]benchCase{
		"read":            {{work: "read", size: 4 * kib, depth: 32}},
		"write":           {{work: "write", size: mib, depth: 8}},
		"append":          {{work: "append", size: 128, depth: 64}},
		"commit":          {{work: "commit", size: 4 * kib, depth: 64}},
		"client-read":     {{work: "read", size: 4 * kib, depth: 32}},
		"client-read-qd1": {{work: "read", size: 4 * kib, depth: 1}},
		"client-seq":      {{work: "write", size: mib, depth: 8}, {work: "read", size: mib, depth: 8, sequential: true}},
		"mblock-durable":  {{work: "commit", size: 32 * mib, depth: 1}, {work: "commit", size: 32 * mib, depth: 4}, {work: "commit", size: 32 * mib, depth: 8}},
		"commit-rate":     {{work: "commit", size: 4 * kib, depth: 1}, {work: "commit", size: 4 * kib, depth: 8}, {work: "commit", size: 4 * kib, depth: 64}},
		"mlog-client":     {{work: "append", size: 128, depth: 64}, {work: "append", size: 4 * kib, depth: 64}},
	}
}

// benchDefault are the rows that are run when none is named.
func benchDefault() []string { return []string{"write", "read", "append", "commit"} }

func newBench(a *app) *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench [POOL] [ROW...]",
		Short: "Measure what a client gets of a pool on this machine",
		Long: `Measure what a client gets of a pool on this machine: how many operations a second,
at what latency, and what they cost of processor time, in this process and in the
daemon (where other clients' work counts too).

  read      random reads from committed mblocks; 4 KiB, 32 in flight
  write     writes into mblocks, which are committed when they are full; 1 MiB, 8
  append    durable appends to one mlog; 128 bytes, 64
  commit    small mblocks, each allocated, written and committed; 4 KiB, 64

Without a ROW all four. The rows of docs/performance.md that a client can measure
are there by their names: client-read, client-read-qd1, client-seq, mblock-durable,
commit-rate, mlog-client. The pool may be left out when only one is active.

Each operation in flight is a goroutine with a blocking call; with --zero-copy its
data lies in memory that is shared with the daemon (read, write). With --async one
goroutine submits and reaps all of them, from such memory (read, write, append).

A row takes a quarter of the free space at most, 1 GiB if that is less, or --data;
it says so if there is not enough. It touches nothing that it has not made, and
deletes that in the end, also when it fails or is interrupted. What it makes has
the tag ` + fmt.Sprint(uint64(benchTag)) + `; what a run that was killed has left of it, the
next one deletes.`,
		Example: `  mpoolctl bench data
  mpoolctl bench data read --size 64KiB --depth 8 --time 10s
  mpoolctl bench data read write append --async --json`,
		Args: cobra.ArbitraryArgs,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			pool, cases, err := o.plan(args)
			if err != nil {
				return err
			}
			return a.withDaemon(ctx, func(d daemon) error {
				if pool == "" {
					if pool, err = onlyPool(ctx, d); err != nil {
						return err
					}
				}
				return a.runBench(ctx, d, pool, cases, &o)
			})
		}),
	}
	f := c.Flags()
	f.Var(&o.size, "size", "bytes of an operation")
	f.Var(&o.depth, "depth", "operations in flight")
	f.Var(&o.data, "data", "how much of the pool to use at most")
	f.DurationVar(&o.time, "time", 3*time.Second, "how long a row takes")
	f.BoolVar(&o.async, "async", false, "submit and reap from one goroutine, with shared memory")
	f.BoolVar(&o.zeroCopy, "zero-copy", false, "use memory that is shared with the daemon")
	f.BoolVar(&o.sequential, "sequential", false, "read in order, not at random")
	f.BoolVar(&o.noSync, "no-sync", false, "append without waiting until it is durable")
	return c
}

// plan reads the arguments and applies the options. pool is "" if none is named.
func (o *benchOptions) plan(args []string) (pool string, cases []benchCase, err error) {
	rows := benchRows()
	if len(args) > 0 && rows[args[0]] == nil {
		pool, args = args[0], args[1:]
	}
	if len(args) == 0 {
		args = benchDefault()
	}
	for _, name := range args {
		if rows[name] == nil {
			return "", nil, usagef("row %q: want one of %s", name, strings.Join(slices.Sorted(maps.Keys(rows)), ", "))
		}
		for _, c := range rows[name] {
			c.row = name
			if err := o.apply(&c); err != nil {
				return "", nil, err
			}
			cases = append(cases, c)
		}
	}
	return pool, cases, nil
}

// apply changes a case as the options say, and refuses what cannot be.
func (o *benchOptions) apply(c *benchCase) error {
	if o.size != 0 {
		c.size = int64(o.size)
	}
	if o.depth != 0 {
		c.depth = int(min(o.depth, benchMaxDepth+1))
	}
	c.sequential = c.sequential || o.sequential
	most := int64(api.MaxMblockCapacity)
	if c.work == "append" {
		most = api.MaxRecord
	}
	switch {
	case o.time <= 0:
		return usagef("--time: want a duration above 0")
	case o.data < 0:
		return usagef("--data: want a size above 0")
	case c.size < 1 || c.size > most:
		return usagef("--size: %s: want 1 byte to %s", c.row, formatSize(most))
	case c.work == "write" && c.size%4096 != 0:
		return usagef("--size: write: want a multiple of 4 KiB")
	case c.depth > benchMaxDepth:
		return usagef("--depth: want 1 to %d", benchMaxDepth)
	case c.size*int64(c.depth) > benchMaxMemory:
		return usagef("%s: %d operations of %s are more than %s of memory: want a smaller --size or --depth",
			c.row, c.depth, formatSize(c.size), formatSize(benchMaxMemory))
	case o.async && c.work == "commit":
		return usagef("--async: commits have blocking calls only")
	case o.zeroCopy && (c.work == "commit" || c.work == "append"):
		return usagef("--zero-copy: want read or write, not %s", c.row)
	}
	return nil
}

// onlyPool returns the name of the active pool, if there is one only.
func onlyPool(ctx context.Context, d daemon) (string, error) {
	pools, err := d.Pools(ctx)
	switch {
	case err != nil:
		return "", err
	case len(pools) == 0:
		return "", api.Errorf(api.ENOENT, "", "there is no active pool: make one with mpoolctl pool create")
	case len(pools) > 1:
		return "", usagef("there are %d active pools: name one", len(pools))
	}
	return pools[0].Name, nil
}

// runBench measures all cases, and cleans up whatever happens.
func (a *app) runBench(ctx context.Context, d daemon, pool string, cases []benchCase, o *benchOptions) error {
	p, err := d.OpenPool(ctx, pool)
	if err != nil {
		return err
	}
	b := &bench{a: a, d: d, p: p, o: o}
	err = b.cleanUp(ctx) // what a run that was killed has left
	for _, c := range cases {
		if err != nil {
			break
		}
		if err = b.measure(ctx, c); err != nil {
			err = fmt.Errorf("%s: %w", c.row, err)
		}
	}
	return errors.Join(err, p.Close())
}
