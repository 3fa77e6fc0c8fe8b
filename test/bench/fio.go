package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/mpool-go/mpool/test/bench/measure"
)

// fio returns a side that is fio with the given options.
func (b *bench) fio(label string, options ...string) side {
	if b.noFio != "" {
		return without(label, b.noFio)
	}
	return side{name: label, run: func(ctx context.Context, _ int) (*measure.Result, error) {
		return fio(ctx, options...)
	}}
}

// fioLatency is a latency of fio's JSON output.
type fioLatency struct {
	Percentile map[string]float64 `json:"percentile"` // ns, by "50.000000"
}

// fioDirection is the part of fio's JSON output about reads, writes or syncs.
type fioDirection struct {
	Bytes   int64      `json:"io_bytes"`
	Ops     int64      `json:"total_ios"`
	Runtime float64    `json:"runtime"` // ms
	Clat    fioLatency `json:"clat_ns"`
	Lat     fioLatency `json:"lat_ns"`
}

// fioJob is one job of fio's JSON output.
type fioJob struct {
	Error   int          `json:"error"`
	Runtime float64      `json:"job_runtime"` // ms
	User    float64      `json:"usr_cpu"`     // percent of Runtime
	System  float64      `json:"sys_cpu"`
	Read    fioDirection `json:"read"`
	Write   fioDirection `json:"write"`
	Sync    fioDirection `json:"sync"`
}

// fio runs one job and returns what it did: its reads, or its writes.
func fio(ctx context.Context, options ...string) (*measure.Result, error) {
	args := append([]string{"--name=anchor", "--output-format=json", "--percentile_list=50:99:99.9"}, options...)
	c := exec.CommandContext(ctx, "fio", args...)
	var out, msg bytes.Buffer
	c.Stdout, c.Stderr = &out, &msg
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("fio %s: %w\n%s%s", strings.Join(args, " "), err, msg.Bytes(), out.Bytes())
	}
	// Notes may come before the JSON.
	text := out.Bytes()
	if i := bytes.IndexByte(text, '{'); i > 0 {
		text = text[i:]
	}
	var parsed struct {
		Jobs []fioJob `json:"jobs"`
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return nil, fmt.Errorf("fio's output: %w", err)
	}
	if len(parsed.Jobs) != 1 || parsed.Jobs[0].Error != 0 {
		return nil, fmt.Errorf("fio %s: %d jobs, not one without error", strings.Join(args, " "), len(parsed.Jobs))
	}
	return parsed.Jobs[0].result(), nil
}

func (j *fioJob) result() *measure.Result {
	d := &j.Read
	if d.Ops == 0 {
		d = &j.Write
	}
	r := &measure.Result{
		Ops: d.Ops, Bytes: d.Bytes, Seconds: d.Runtime / 1e3,
		CPUUS: (j.User + j.System) / 100 * j.Runtime * 1e3,
	}
	us := func(q string) float64 {
		v := d.Clat.Percentile[q]
		if j.Sync.Ops >= d.Ops {
			v += j.Sync.Lat.Percentile[q] // a sync after each write: the caller waits for both
		}
		return v / 1e3
	}
	r.P50US, r.P99US, r.P999US = us("50.000000"), us("99.000000"), us("99.900000")
	return r
}
