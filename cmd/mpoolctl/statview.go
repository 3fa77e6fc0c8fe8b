package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/mpool-go/mpool/client"
)

// statView is a set of counters as it is shown.
type statView struct {
	Time       string      `json:"time"`
	Pool       string      `json:"pool,omitempty"`
	UptimeS    float64     `json:"uptime_s"`
	Sessions   uint32      `json:"sessions"`
	Handles    uint32      `json:"handles"`
	Reaped     uint64      `json:"reaped"`
	ArenaBytes uint64      `json:"arena_bytes"`      // shared with clients
	HugeBytes  uint64      `json:"arena_huge_bytes"` // of these on huge pages
	Operations []opView    `json:"operations"`
	Drives     []driveStat `json:"drives"`
}

// opView counts one operation; times are in microseconds.
type opView struct {
	Op     string  `json:"op"`
	Count  uint64  `json:"count"`
	Errors uint64  `json:"errors"`
	Bytes  uint64  `json:"bytes"`
	MeanUS float64 `json:"mean_us"`
	P50US  uint64  `json:"p50_us"`
	P99US  uint64  `json:"p99_us"`
	P999US uint64  `json:"p999_us"`
}

// driveStat counts one drive's operations.
type driveStat struct {
	Path          string `json:"path"`
	Reads         uint64 `json:"reads"`
	Writes        uint64 `json:"writes"`
	Flushes       uint64 `json:"flushes"`
	Discards      uint64 `json:"discards"`
	ReadBytes     uint64 `json:"read_bytes"`
	WriteBytes    uint64 `json:"write_bytes"`
	Errors        uint64 `json:"errors"`
	FlushFailures uint64 `json:"flush_failures"`
}

// newStatView shows what has been counted between two looks.
func newStatView(pool string, last, now client.Stats) statView {
	v := statView{
		Time: formatTime(time.Now()), Pool: pool, UptimeS: now.Uptime.Seconds(),
		Sessions: now.Sessions, Handles: now.Handles, Reaped: now.Reaped - last.Reaped,
		ArenaBytes: now.Arenas, HugeBytes: now.Huge,
		Operations: []opView{}, Drives: []driveStat{},
	}
	before := make(map[string]client.OpCounters)
	for _, o := range last.Ops {
		before[o.Op.Name()] = o
	}
	for _, o := range now.Ops {
		v.Operations = append(v.Operations, newOpView(before[o.Op.Name()], o))
	}
	drives := make(map[string]client.DriveCounters)
	for _, d := range last.Drives {
		drives[d.Path] = d
	}
	for _, d := range now.Drives {
		v.Drives = append(v.Drives, newDriveStat(drives[d.Path], d))
	}
	return v
}

func newOpView(last, now client.OpCounters) opView {
	v := opView{
		Op: now.Op.Name(), Count: now.Count - last.Count, Errors: now.Errors - last.Errors, Bytes: now.Bytes - last.Bytes,
	}
	if v.Count == 0 {
		return v
	}
	buckets := now.Buckets
	for i := range buckets {
		buckets[i] -= last.Buckets[i]
	}
	v.MeanUS = float64((now.Total-last.Total).Nanoseconds()/int64(v.Count)) / 1e3
	v.P50US, v.P99US, v.P999US = percentile(buckets[:], 500), percentile(buckets[:], 990), percentile(buckets[:], 999)
	return v
}

// percentile gives the upper end, in microseconds, of the bucket that a per
// mille of all counts lie in or below. Bucket i ends at 2^i.
func percentile(buckets []uint64, perMille uint64) uint64 {
	var total, sum uint64
	for _, n := range buckets {
		total += n
	}
	for i, n := range buckets {
		sum += n
		if sum*1000 >= total*perMille {
			return 1 << i
		}
	}
	return 0
}

func newDriveStat(last, now client.DriveCounters) driveStat {
	return driveStat{
		Path: now.Path, Reads: now.Reads - last.Reads, Writes: now.Writes - last.Writes,
		Flushes: now.Flushes - last.Flushes, Discards: now.Discards - last.Discards,
		ReadBytes: now.ReadBytes - last.ReadBytes, WriteBytes: now.WriteBytes - last.WriteBytes,
		Errors: now.Errors - last.Errors, FlushFailures: now.FlushFailures - last.FlushFailures,
	}
}

func (v statView) show(w io.Writer, _ bool) error {
	what := "daemon"
	if v.Pool != "" {
		what = "pool " + v.Pool
	}
	up := (time.Duration(v.UptimeS) * time.Second).String()
	if _, err := fmt.Fprintf(w, "%s  %s  up %s  sessions %d  handles %d  ended %d\n",
		v.Time, what, up, v.Sessions, v.Handles, v.Reaped); err != nil {
		return err
	}
	if v.ArenaBytes > 0 {
		if _, err := fmt.Fprintf(w, "shared with clients %s, %s of it on huge pages\n",
			formatSize(int64(v.ArenaBytes)), formatSize(int64(v.HugeBytes))); err != nil {
			return err
		}
	}
	rows := make([][]string, 0, len(v.Operations))
	for _, o := range v.Operations {
		rows = append(rows, []string{
			o.Op, number(o.Count), number(o.Errors), formatSize(int64(o.Bytes)), fmt.Sprintf("%.0f µs", o.MeanUS),
			number(o.P50US) + " µs", number(o.P99US) + " µs", number(o.P999US) + " µs",
		})
	}
	if len(rows) > 0 {
		err := writeTable(w, []string{"OPERATION", "COUNT", "ERRORS", "DATA", "MEAN", "P50", "P99", "P99.9"}, rows)
		if err != nil {
			return err
		}
	}
	rows = rows[:0]
	for _, d := range v.Drives {
		rows = append(rows, []string{
			d.Path, number(d.Reads), formatSize(int64(d.ReadBytes)), number(d.Writes), formatSize(int64(d.WriteBytes)),
			number(d.Flushes), number(d.Discards), number(d.Errors + d.FlushFailures),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	return writeTable(w, []string{
		"DRIVE", "READS", "READ", "WRITES", "WRITTEN", "FLUSHES", "DISCARDS", "ERRORS",
	}, rows)
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
