package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressInterval is how often a bar is drawn.
const progressInterval = 100 * time.Millisecond

// progress shows how far a verb is, on a terminal only. Safe for concurrent
// use; the zero value shows nothing.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress begins a bar over a number of bytes; -1: unknown.
func (a *app) newProgress(what string, bytes int64) progress {
	if a.json || a.quiet || !a.terminal(a.stderr) {
		return progress{}
	}
	return progress{bar: progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(progressInterval),
	)}
}

// add counts bytes done. A bar that cannot be drawn is not worth an error.
func (p progress) add(bytes int64) {
	if p.bar != nil {
		_ = p.bar.Add64(bytes) //nolint:errcheck // see above
	}
}

// end removes the bar.
func (p progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish() //nolint:errcheck // see add
	}
}

// grow changes the number of bytes that there are.
func (p progress) grow(bytes int64) {
	if p.bar != nil && p.bar.GetMax64() != bytes {
		p.bar.ChangeMax64(bytes)
	}
}
