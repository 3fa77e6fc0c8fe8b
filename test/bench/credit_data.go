package main

import (
	"context"
	"strconv"
)

// noCredits is the value of -credits for none.
const noCredits = "-"

// dataCase is a workload of another row, for a client with credits and one without.
type dataCase struct {
	name, task string
	fill       bool // of it mblocks are read that are there
	args       []string
}

// The most that credits may take of the data path.
const (
	creditRate = 0.97
	creditCPU  = 1.03
)

// creditData compares the data path of a client that takes credits with that of one
// that does not: with credits alone, and with a cache of objects that is far smaller
// than what is read, so that nearly all reads are misses.
func (b *bench) creditData(ctx context.Context) error {
	if _, err := b.work(ctx, "read-fill", "-dev", b.fast, "-size", strconv.FormatInt(b.readBytes(), 10)); err != nil {
		return err
	}
	reads := func(flight string, more ...string) []string {
		return append([]string{"-time", b.time.String(), "-flight", flight}, more...)
	}
	objects, whole, logs := "6000", "1073741824", reads("64", "-size", "128")
	if b.quick {
		objects, whole = "1000", "268435456"
	}
	for _, c := range []dataCase{
		{"client-read, queue", "client-read", true, reads("32")},
		{"client-read, 32 goroutines", "client-read", true, reads("32", "-blocking")},
		{"client-read-qd1", "client-read", true, reads("1", "-blocking")},
		{"client-seq, write", "client-write", false, []string{"-size", whole, "-flight", "8", "-kind", "own"}},
		{"client-seq, read", "client-scan", false, []string{"-size", whole, "-flight", "8", "-kind", "own"}},
		{"mblock-durable", "client-durable", false, []string{"-ops", "24", "-flight", "4", "-kind", "own"}},
		{"mlog-client", "client-mlog", false, logs},
		{"commit-rate", "client-commit", false, []string{"-ops", objects, "-flight", "8"}},
		{"commit-rate, one request", "client-commit", false, []string{"-ops", objects, "-flight", "8", "-kind", "put"}},
	} {
		if err := b.creditCase(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// creditCase compares one workload.
func (b *bench) creditCase(ctx context.Context, c dataCase) error {
	args := append(c.args, "-dev", b.fast)
	if c.task == "client-scan" { // of what there was is nothing left
		size := args[1]
		if _, err := b.client("", "client-write", "-dev", b.fast, "-size", size, "-flight", "8", "-kind", "own").run(ctx, 0); err != nil {
			return err
		}
	}
	sides := []side{
		b.client("credits", c.task, append(args, "-credits", "0")...),
		b.client("none", c.task, append(args, "-credits", noCredits)...),
	}
	if c.fill {
		sides = append(sides, b.client("credits and cache", c.task, append(args, "-credits", strconv.Itoa(creditSmall))...))
	}
	all, err := b.alternate(ctx, sides...)
	if err != nil {
		return err
	}
	b.report("fast, "+c.name+": CPU", cpuPerOp, all[0], all[1], ratioAtMost, creditCPU, 0)
	b.report("fast, "+c.name, opsPerSecond, all[0], all[1], ratioAtLeast, creditRate, 0)
	if c.fill {
		b.report("fast, "+c.name+", cache missed: CPU", cpuPerOp, all[2], all[1], ratioAtMost, 0, 0)
	}
	return nil
}

// creditSmall is the size of a cache in which next to nothing is found of what is read
// at random.
const creditSmall = 16 << 20
