package main

import (
	"fmt"
	"slices"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// line is one figure beside its anchor.
type line struct {
	Row, Case    string
	Where        string // "in-process" or "daemon"
	Zone         int64  // of the pool in bytes; 0: no pool
	Note         string // what else is to be said, or why there is no anchor
	Unit         string
	Mine, Anchor figure
	Compared     spread // the two figures compared as How says, turn by turn
	How          how
	Must, Aim    float64 // limits of Compared's median; 0: none
	Verdict      string
	Seconds      float64 // that the row took
	Others       spread  // cores that others used during the row's turns
}

// figure is what one side measured, over all turns.
type figure struct {
	Name              string
	Value             spread
	CPU               spread // µs per operation, all processes
	DaemonCPU         spread // of this the daemon's
	P50, P99, P999    float64
	Runs              []*measure.Result
	HasCPU, HasLatent bool
}

// spread is a median with the extremes.
type spread struct{ Median, Min, Max float64 }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(v))
	mid := s[len(s)/2]
	if len(s)%2 == 0 {
		mid = (mid + s[len(s)/2-1]) / 2
	}
	return spread{mid, s[0], s[len(s)-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%s [%s-%s]", number(s.Median), number(s.Min), number(s.Max))
}

// number prints three or four digits.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// metric is what is taken of a result.
type metric struct {
	unit string
	of   func(*measure.Result) float64
}

// The metrics that several rows use.
var (
	opsPerSecond = metric{"op/s", (*measure.Result).Rate}
	mbPerSecond  = metric{"MB/s", func(r *measure.Result) float64 { return r.Bandwidth() / 1e6 }}
	cpuPerOp     = metric{"µs CPU/op", (*measure.Result).CPU}
	wallTime     = metric{"s", func(r *measure.Result) float64 { return r.Seconds }}
)

// extra is a metric of a result's Extra.
func extra(name, unit string) metric {
	return metric{unit, func(r *measure.Result) float64 { return r.Extra[name] }}
}

// how compares the two sides.
type how int

// The ways to compare.
const (
	ratioAtLeast how = iota // ours / anchor's, more is better
	ratioAtMost             // ours / anchor's, less is better
	aboveAtMost             // ours - anchor's, less is better
	valueAtMost             // ours alone, less is better
)

func (h how) compare(mine, anchor float64) float64 {
	switch h {
	case ratioAtLeast, ratioAtMost:
		return mine / anchor
	case aboveAtMost:
		return mine - anchor
	case valueAtMost:
	}
	return mine
}

func (h how) String() string {
	return [...]string{"ratio", "ratio, less is better", "difference", "value"}[h]
}

// MarshalText puts the name into JSON.
func (h how) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads it back.
func (h *how) UnmarshalText(b []byte) error {
	for k := ratioAtLeast; k <= valueAtMost; k++ {
		if k.String() == string(b) {
			*h = k
			return nil
		}
	}
	return fmt.Errorf("unknown comparison %q", b)
}

// meets says whether a compared value keeps a limit.
func (h how) meets(v, limit float64) bool {
	if h == ratioAtLeast {
		return v >= limit
	}
	return v <= limit
}

func (h how) limit(v float64) string {
	switch {
	case v == 0:
		return "-"
	case h == ratioAtLeast:
		return ">=" + number(v)
	case h == aboveAtMost:
		return "<=+" + number(v)
	default:
		return "<=" + number(v)
	}
}

// report adds a line that compares a metric of two series. anchor is nil when
// there is none.
func (b *bench) report(name string, m metric, mine, anchor *series, h how, must, aim float64) *line {
	l := &line{Case: name, Unit: m.unit, Where: "in-process", Mine: figureOf(mine, m), How: h, Must: must, Aim: aim}
	if mine.Daemon {
		l.Where = "daemon"
	}
	for _, r := range mine.Runs {
		l.Zone = max(l.Zone, r.Zone)
	}
	b.lines = append(b.lines, l)
	switch {
	case anchor == nil:
	case anchor.Missing != "":
		l.Note = "no " + anchor.Name + ": " + anchor.Missing
	default:
		l.Anchor = figureOf(anchor, m)
	}
	if h == valueAtMost || l.Anchor.Name != "" {
		l.compare(m, mine, anchor)
	}
	against := ""
	if l.Anchor.Name != "" {
		against = fmt.Sprintf(" against %s of %s", l.Anchor.Value, anchor.Name)
	}
	fmt.Fprintf(b.log, "  %s (%s): %s %s%s: %s %s %s%s\n", name, l.Where, l.Mine.Value, m.unit, against, l.How, l.Compared, l.Verdict, l.Note)
	return l
}

// compare compares the two sides turn by turn, and says which limits are kept.
func (l *line) compare(m metric, mine, anchor *series) {
	var compared []float64
	for i, r := range mine.Runs {
		var other float64
		if anchor != nil && i < len(anchor.Runs) {
			other = m.of(anchor.Runs[i])
		}
		compared = append(compared, l.How.compare(m.of(r), other))
	}
	l.Compared = spreadOf(compared)
	switch {
	case l.Must != 0 && !l.How.meets(l.Compared.Median, l.Must):
		l.Verdict = "MISSED"
	case l.Aim != 0 && l.How.meets(l.Compared.Median, l.Aim):
		l.Verdict = "aim"
	case l.Must != 0:
		l.Verdict = "ok"
	case l.Aim != 0:
		l.Verdict = "below aim"
	}
}

func figureOf(s *series, m metric) figure {
	f := figure{Name: s.Name, Runs: s.Runs}
	var value, cpu, daemon, p50, p99, p999 []float64
	for _, r := range s.Runs {
		value = append(value, m.of(r))
		if r.Ops > 0 && r.CPUUS > 0 {
			cpu, daemon = append(cpu, r.CPU()), append(daemon, r.DaemonCPU())
		}
		if r.P50US > 0 {
			p50, p99, p999 = append(p50, r.P50US), append(p99, r.P99US), append(p999, r.P999US)
		}
	}
	f.Value, f.CPU, f.DaemonCPU = spreadOf(value), spreadOf(cpu), spreadOf(daemon)
	f.P50, f.P99, f.P999 = spreadOf(p50).Median, spreadOf(p99).Median, spreadOf(p999).Median
	f.HasCPU, f.HasLatent = len(cpu) > 0, len(p50) > 0
	return f
}
