package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/mpool-go/mpool/server"
	"github.com/mpool-go/mpool/uhandle/exitwatch"
)

// The values of deaths.ebpf.
const (
	ebpfAuto    = "auto"    // use the exit tracepoint if the daemon may
	ebpfOff     = "off"     // do not try
	ebpfRequire = "require" // or do not start
)

// deathWatch is the exit tracepoint as a source of clients' deaths, or why it is
// none.
type deathWatch struct {
	source *exitwatch.Source // nil: not in use
	why    error             // it was tried in vain
}

// watchDeaths opens the exit tracepoint as the configuration has it. Close it.
func watchDeaths(c *config, log *slog.Logger) (w deathWatch, err error) {
	if c.Deaths.EBPF == ebpfOff {
		return w, nil
	}
	w.source, w.why = exitwatch.Open(exitwatch.Options{
		Processes: c.Limits.Sessions,
		Trouble: func(err error) {
			log.Warn("the exit tracepoint misses clients' deaths: the pidfds notice them", slog.Any("error", err))
		},
	})
	if w.why != nil && c.Deaths.EBPF == ebpfRequire {
		return w, fmt.Errorf("deaths.ebpf is %q: %w", ebpfRequire, w.why)
	}
	// The kernel's types, 10 MB, are garbage by now, and an idle daemon would
	// not come to collect it.
	debug.FreeOSMemory()
	return w, nil
}

// tell says by what clients' deaths are noticed.
func (w *deathWatch) tell(log *slog.Logger) {
	attrs := []slog.Attr{slog.String("by", "pidfd, socket")}
	if w.why != nil {
		attrs = append(attrs, slog.String("not_by_bpf", w.why.Error()))
	}
	if w.source != nil {
		attrs = []slog.Attr{
			slog.String("by", "bpf, pidfd, socket"),
			slog.Bool("before_memory_is_freed", w.source.Early()),
			slog.Bool("before_other_threads", w.source.Prompt()),
		}
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "clients' deaths are noticed", attrs...)
}

// use makes the server use it.
func (w *deathWatch) use(o *server.Options) {
	if w.source != nil {
		o.Deaths = append(o.Deaths, w.source)
	}
}

// stats are for the metrics.
func (w *deathWatch) stats() exitwatch.Stats {
	if w.source == nil {
		return exitwatch.Stats{}
	}
	return w.source.Stats()
}

func (w *deathWatch) close() {
	if w.source != nil {
		w.source.Close()
	}
}
