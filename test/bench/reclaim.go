package main

import (
	"context"
	"fmt"
	"strconv"
)

// What a client holds when it is killed: so many handles on committed mblocks, and
// for each hundred of them one on an mblock that it has written to and not
// committed.
const (
	reclaimHandles  = 10_000
	handlesPerWrite = 100
)

// How the daemon notices deaths: its configuration.
const (
	deathsEBPF   = "[deaths]\nebpf = 'require'\n"
	deathsNoEBPF = "[deaths]\nebpf = 'off'\n"
)

// reclaimCase is how a client is when it is killed.
type reclaimCase struct {
	name     string
	resident int64 // bytes
	child    bool  // a child that it has forked goes on, with the socket and all its memory
}

// reclaimCases returns the cases of the row.
func (b *bench) reclaimCases() []reclaimCase {
	cases := []reclaimCase{
		{"0 GiB", 0, false},
		{"1 GiB", 1 << 30, false},
		{"4 GiB", 4 << 30, false},
		{"0 GiB, a child goes on", 0, true},
		{"1 GiB, a child goes on", 1 << 30, true},
		{"4 GiB, a child goes on", 4 << 30, true},
	}
	if b.quick {
		return []reclaimCase{cases[0], cases[4]}
	}
	return cases
}

// reclaim kills clients and measures when what they held is free: from the kill until
// all handles had ended, a moment that the daemon tells; and until another process that
// asks again and again has the answer that they have, which also says that no question
// asked after the former moment was answered otherwise. Beside it the moments when the
// kernel makes the client's pidfd readable and ends a socket of its own.
func (b *bench) reclaim(ctx context.Context) error {
	turns, patience := b.turns, b.patience
	b.turns, b.patience = 1, 0 // each of a run's kills is a turn
	defer func() { b.turns, b.patience = turns, patience }()
	for _, c := range b.reclaimCases() {
		kills := 50
		switch {
		case b.quick:
			kills = 4
		case c.resident > 1<<30:
			kills = 16 // to make so much memory resident takes seconds
		}
		args := []string{
			"-dev", b.fast, "-objects", strconv.Itoa(reclaimHandles), "-size", strconv.FormatInt(c.resident, 10), "-ops", strconv.Itoa(kills),
		}
		if c.child {
			args = append(args, "-kind", "child")
		}
		all, err := b.alternate(ctx,
			b.clientOf("with eBPF", deathsEBPF, "client-reclaim", args...), b.clientOf("without", deathsNoEBPF, "client-reclaim", args...))
		if err != nil {
			return err
		}
		with, without := all[0], all[1]
		b.reportReclaim(c.name+", eBPF: free", with, "free", 1, 5, 1)
		b.reportReclaim(c.name+", eBPF: free after the tracepoint", with, "after", 0, 0, 0)
		b.reportReclaim(c.name+", eBPF: another process sees it", with, "seen", 0, 0, 0)
		b.reportReclaim(c.name+", eBPF: the event", with, "told", 0, 0, 0)
		b.reportReclaim(c.name+", without: free", without, "free", 0, 0, 0)
		b.reportReclaim(c.name+", without: another process sees it", without, "seen", 0, 0, 0)
		b.reportReclaim(c.name+", without: free after the pidfd", without, "freeOver", 0, 5, 0)
	}
	return nil
}

// reportReclaim adds the lines of one moment: half of the kills, and all but one
// in a hundred of them.
func (b *bench) reportReclaim(name string, s *series, what string, must50, must99, aim99 float64) {
	pidfd := &series{Name: "pidfd"}
	pidfd.Runs = append(pidfd.Runs, s.Runs...)
	for _, q := range []struct {
		name      string
		must, aim float64
	}{{"P50", must50, 0}, {"P99", must99, aim99}} {
		l := b.report(name+", "+q.name, extra(what+q.name, "ms"), s, nil, valueAtMost, q.must, q.aim)
		l.Anchor = figureOf(pidfd, extra("pidfd"+q.name, "ms"))
		l.Mine.HasCPU, l.Anchor.HasCPU, l.Anchor.HasLatent = false, false, false
		l.Note = "the socket's end never"
		if end := figureOf(s, extra("socket"+q.name, "ms")).Value.Median; end > 0 {
			l.Note = fmt.Sprintf("the socket's end %s ms", number(end))
		}
		if exit := figureOf(s, extra("exit"+q.name, "ms")).Value.Median; exit > 0 {
			l.Note += fmt.Sprintf(", the tracepoint %s ms", number(exit))
		}
	}
}

// stormClients is how many clients are killed at once.
const stormClients = 1000

// reclaimStorm kills many clients at once and measures when all that they held is
// free.
func (b *bench) reclaimStorm(ctx context.Context) error {
	clients := stormClients
	if b.quick {
		clients = stormClients / 5
	}
	args := []string{"-dev", b.fast, "-objects", strconv.Itoa(stormHandles), "-flight", strconv.Itoa(clients)}
	all, err := b.alternate(ctx,
		b.clientOf("with eBPF", deathsEBPF, "client-storm", args...), b.clientOf("without", deathsNoEBPF, "client-storm", args...))
	if err != nil {
		return err
	}
	for i, s := range all {
		name := fmt.Sprintf("%d clients, %s: ", clients, []string{"eBPF", "without"}[i])
		b.report(name+"all reclaimed", wallTime, s, nil, valueAtMost, 1, 0)
	}
	return nil
}
