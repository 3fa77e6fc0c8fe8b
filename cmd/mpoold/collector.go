package main

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mpool-go/mpool/server"
	"github.com/mpool-go/mpool/uhandle/exitwatch"
)

// metric is one family of metrics.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

// families are the metrics of the daemon. Space, in bytes, is given by state and
// adds up to the drives' sizes.
type families struct {
	build, sessions, handles, arena, events, reaped    metric
	hugeArena                                          metric
	requests, requestErrors, requestBytes, requestTime metric

	space, stored, objects, poolHandles, orphans  metric
	health, readOnly, table, sums                 metric
	driveOps, driveBytes, driveErrors, flushFails metric
	inFlight, driveState, driveSize, driveFree    metric

	creditObjects, creditDebtors, creditMessages, fenced metric

	watching, watched, watchLost, watchRefused metric

	loopSessions, loopRings, loopArenas, loopListeners     metric
	loopWakeups, loopOps, loopBytes, loopSlow, loopRereads metric
	loopEmpty                                              metric

	scopeUsed, scopeLimit, scopeRefused, refused, wrongBooks metric

	dropped, reloads, reloaded metric
}

func newFamilies() families {
	return families{
		build:    gauge("mpool_build_info", "Always 1; version and go_version say what runs.", "version", "go_version"),
		sessions: gauge("mpool_sessions", "Sessions that are open."),
		handles:  gauge("mpool_handles", "Handles that all sessions hold."),
		arena:    gauge("mpool_arena_bytes", "Memory shared with clients, in bytes."),
		events:   counter("mpool_events_total", "Events since the start, by type.", "type"),
		reaped: counter("mpool_sessions_reaped_total",
			"Clients that ended, by how (cause) and by what it was noticed (detected_by).", "cause", "detected_by"),
		hugeArena: gauge("mpool_arena_huge_bytes", "Memory shared with clients that is on huge pages, in bytes."),

		requests:      counter("mpool_requests_total", "Requests answered, with an error or without, by operation.", "op"),
		requestErrors: counter("mpool_request_errors_total", "Requests answered with an error, by operation.", "op"),
		requestBytes:  counter("mpool_request_bytes_total", "Bytes of data read or written for clients, by operation.", "op"),
		requestTime: gauge("mpool_request_duration_seconds",
			"Time from a request's arrival to its answer, in seconds, by operation.", "op"), // a histogram

		space:          gauge("mpool_pool_space_bytes", "Space of a pool by its state, in bytes; the states add up to its drives.", "pool", "state"),
		stored:         gauge("mpool_pool_stored_bytes", "Bytes that users wrote and committed.", "pool"),
		objects:        gauge("mpool_pool_objects", "Committed objects, by kind.", "pool", "kind"),
		creditObjects:  gauge("mpool_credit_objects", "Objects of which somebody has a credit or waits for one.", "pool"),
		creditDebtors:  gauge("mpool_credit_debtors", "Handles of the pool that borrow credits.", "pool"),
		creditMessages: counter("mpool_credit_messages_total", "Messages of credits from clients.", "pool"),
		fenced:         counter("mpool_credits_fenced_total", "Credits taken from who did not give them back in time.", "pool"),
		poolHandles:    gauge("mpool_pool_handles", "Handles on the pool and in it.", "pool"),
		orphans:        gauge("mpool_pool_orphans", "Uncommitted objects of clients that have ended, about to be aborted.", "pool"),
		health:         gauge("mpool_pool_health", "1 for the state that the pool's health is in, 0 for the others.", "pool", "health"),
		readOnly:       gauge("mpool_pool_read_only", "1 if the pool refuses writes, else 0.", "pool"),
		table:          gauge("mpool_pool_table_bytes", "Memory of the table of objects, in bytes.", "pool"),
		sums:           gauge("mpool_pool_sums_bytes", "Memory of checksums that are kept in it, in bytes.", "pool"),

		driveOps:    counter("mpool_drive_operations_total", "Operations that a drive was given, by kind.", "pool", "drive", "op"),
		driveBytes:  counter("mpool_drive_bytes_total", "Bytes read from a drive and written to it.", "pool", "drive", "op"),
		driveErrors: counter("mpool_drive_errors_total", "Operations that a drive failed.", "pool", "drive"),
		flushFails:  counter("mpool_drive_flush_failures_total", "Flushes that a drive failed; each takes writes with it.", "pool", "drive"),
		inFlight:    gauge("mpool_drive_operations_in_flight", "Operations that a drive has under way.", "pool", "drive"),
		driveState:  gauge("mpool_drive_state", "1 for the state that the drive is in, 0 for the others.", "pool", "drive", "state"),
		driveSize:   gauge("mpool_drive_size_bytes", "Size of a drive, in bytes.", "pool", "drive", "class"),
		driveFree:   gauge("mpool_drive_free_bytes", "Free space of a drive, in bytes.", "pool", "drive", "class"),

		watching:     gauge("mpool_exit_watch_up", "1 if clients' deaths are noticed by the kernel's exit tracepoint, else 0."),
		watched:      gauge("mpool_exit_watch_processes", "Processes that are watched by the exit tracepoint."),
		watchLost:    counter("mpool_exit_watch_lost_total", "Deaths that the exit tracepoint could not tell; others noticed them."),
		watchRefused: counter("mpool_exit_watch_refused_total", "Processes that the exit tracepoint does not watch, for want of room; others do."),

		loopSessions:  gauge("mpool_loop_sessions", "Sessions whose rings an I/O loop serves.", "loop"),
		loopRings:     gauge("mpool_loop_rings", "Rings that an I/O loop serves.", "loop"),
		loopArenas:    gauge("mpool_loop_arenas", "Arenas that an I/O loop uses; whether registered with the kernel.", "loop", "registered"),
		loopListeners: gauge("mpool_loop_listeners", "Threads that listen to rings, for want of a wait within io_uring.", "loop"),
		loopWakeups:   counter("mpool_loop_wakeups_total", "How often an I/O loop woke from sleep.", "loop"),
		loopOps:       counter("mpool_loop_operations_total", "Descriptors of rings answered.", "loop"),
		loopBytes:     counter("mpool_loop_bytes_total", "Bytes of data read or written for rings.", "loop"),
		loopSlow:      counter("mpool_loop_slow_operations_total", "Descriptors that had to wait, and were served by a goroutine.", "loop"),
		loopRereads: counter("mpool_loop_rereads_total",
			"Reads that did not match their checksums in the client's memory, and were read again into the daemon's.", "loop"),
		loopEmpty: counter("mpool_loop_empty_bells_total", "Bells of rings that rang for nothing.", "loop"),

		scopeUsed:    gauge("mpool_scope_used", "What a scope uses now, by kind; memory in bytes. Not of single clients.", "scope", "kind"),
		scopeLimit:   gauge("mpool_scope_limit", "How much a scope may use of a kind, where there is a limit.", "scope", "kind"),
		scopeRefused: counter("mpool_scope_refused_total", "What a scope refused, by kind. Not of single clients.", "scope", "kind"),
		refused:      counter("mpool_refused_total", "What all scopes refused, by kind, those of clients included.", "kind"),
		wrongBooks:   counter("mpool_wrong_books_total", "Sessions ended because more was given back for them than was reserved: a defect of the daemon."),

		dropped:  counter("mpool_log_lines_dropped_total", "Log lines that nobody took in time."),
		reloads:  gauge("mpool_config_reload_successful", "1 if the configuration was read the last time that it was tried, else 0."),
		reloaded: gauge("mpool_config_reload_success_timestamp_seconds", "When the configuration was last read, in seconds since 1970."),
	}
}

// all returns the families.
func (f *families) all() []metric {
	return []metric{
		f.build, f.sessions, f.handles, f.arena, f.hugeArena, f.events, f.reaped,
		f.requests, f.requestErrors, f.requestBytes, f.requestTime,
		f.space, f.stored, f.objects, f.poolHandles, f.orphans, f.creditObjects, f.creditDebtors, f.creditMessages, f.fenced, f.health, f.readOnly, f.table, f.sums,
		f.driveOps, f.driveBytes, f.driveErrors, f.flushFails, f.inFlight, f.driveState, f.driveSize, f.driveFree,
		f.watching, f.watched, f.watchLost, f.watchRefused,
		f.loopSessions, f.loopRings, f.loopArenas, f.loopListeners,
		f.loopWakeups, f.loopOps, f.loopBytes, f.loopSlow, f.loopRereads, f.loopEmpty,
		f.scopeUsed, f.scopeLimit, f.scopeRefused, f.refused, f.wrongBooks,
		f.dropped, f.reloads, f.reloaded,
	}
}

// daemonState is what the command itself tells, beside the server.
type daemonState struct {
	exits    exitwatch.Stats
	dropped  uint64 // log lines
	reloadOK bool
	reloaded time.Time
}

// collector makes metrics of snapshots: it waits for nothing.
type collector struct {
	families
	snapshot func() server.Snapshot
	state    func() daemonState
}

// newRegistry returns a registry with the daemon's metrics, the process's and
// the Go runtime's.
func newRegistry(snapshot func() server.Snapshot, state func() daemonState) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		&collector{families: newFamilies(), snapshot: snapshot, state: state},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return reg
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.all() {
		ch <- m.desc
	}
}

// emitter sends metrics.
type emitter chan<- prometheus.Metric

func (e emitter) send(m metric, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "?") // paths are bytes
	}
	e <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

// oneOf sends 1 for the state that is and 0 for the others; the state is the
// last label.
func (e emitter) oneOf(m metric, is string, states []string, labels ...string) {
	for _, s := range states {
		v := 0.0
		if s == is {
			v = 1
		}
		e.send(m, v, append(slices.Clip(labels), s)...)
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	e, s, d := emitter(ch), c.snapshot(), c.state()
	e.send(c.build, 1, buildVersion(), runtime.Version())
	e.send(c.sessions, float64(s.Sessions))
	e.send(c.handles, float64(s.Handles))
	e.send(c.arena, float64(s.ArenaBytes))
	e.send(c.hugeArena, float64(s.HugeBytes))
	for _, n := range s.Events {
		e.send(c.events, float64(n.Count), n.Type)
	}
	for _, n := range s.Reaped {
		e.send(c.reaped, float64(n.Count), n.Cause, n.DetectedBy)
	}
	for i := range s.Ops {
		c.operation(e, &s.Ops[i])
	}
	for i := range s.Pools {
		c.pool(e, &s.Pools[i])
	}
	e.send(c.watching, boolean(d.exits.Up))
	e.send(c.watched, float64(d.exits.Processes))
	e.send(c.watchLost, float64(d.exits.Lost))
	e.send(c.watchRefused, float64(d.exits.Refused))
	for i := range s.Loops {
		c.loop(e, strconv.Itoa(i), &s.Loops[i])
	}
	c.scopes(e, &s)
	e.send(c.dropped, float64(d.dropped))
	e.send(c.reloads, boolean(d.reloadOK))
	e.send(c.reloaded, float64(d.reloaded.UnixMilli())/1e3)
}

// scopes sends the metrics of scopes.
func (c *collector) scopes(e emitter, s *server.Snapshot) {
	for _, v := range s.Scopes {
		kind := v.Kind.String()
		e.send(c.scopeUsed, float64(v.Used), v.Scope, kind)
		e.send(c.scopeRefused, float64(v.Refused), v.Scope, kind)
		if n, limited := v.LimitNumber(); limited {
			e.send(c.scopeLimit, float64(n), v.Scope, kind)
		}
	}
	e.send(c.wrongBooks, float64(s.WrongBooks))
	for _, v := range s.Refused {
		e.send(c.refused, float64(v.Count), v.Kind)
	}
}

// loop sends the metrics of one I/O loop.
func (c *collector) loop(e emitter, name string, l *server.LoopSnapshot) {
	e.send(c.loopSessions, float64(l.Sessions), name)
	e.send(c.loopRings, float64(l.Rings), name)
	e.send(c.loopArenas, float64(l.Registered), name, "true")
	e.send(c.loopArenas, float64(l.Plain), name, "false")
	e.send(c.loopListeners, float64(l.Listeners), name)
	e.send(c.loopWakeups, float64(l.Wakeups), name)
	e.send(c.loopOps, float64(l.Ops), name)
	e.send(c.loopBytes, float64(l.Bytes), name)
	e.send(c.loopSlow, float64(l.Slow), name)
	e.send(c.loopRereads, float64(l.Rereads), name)
	e.send(c.loopEmpty, float64(l.EmptyBells), name)
}

// operation sends the metrics of one operation of the protocol.
func (c *collector) operation(e emitter, o *server.OpSnapshot) {
	e.send(c.requests, float64(o.Count), o.Name)
	e.send(c.requestErrors, float64(o.Errors), o.Name)
	e.send(c.requestBytes, float64(o.Bytes), o.Name)
	buckets := make(map[float64]uint64, len(o.Latency))
	var count uint64 // the buckets' own: they are not read at one moment with the others
	for _, b := range o.Latency {
		count += b.Count
		if b.Below > 0 {
			buckets[b.Below.Seconds()] = count
		}
	}
	e <- prometheus.MustNewConstHistogram(c.requestTime.desc, count, o.Total.Seconds(), buckets, o.Name)
}

// pool sends the metrics of one pool.
func (c *collector) pool(e emitter, p *server.PoolSnapshot) {
	name, s := p.Info.Name, p.Info.Space
	for _, v := range []struct {
		state string
		bytes int64
	}{
		{"free", s.Free},
		{"live", s.Live},
		{"uncommitted", s.Uncommitted},
		{"draining", s.Draining},
		{"spare", s.Spare},
		{"overhead", s.Overhead},
		{"remainder", s.Remainder},
	} {
		e.send(c.space, float64(v.bytes), name, v.state)
	}
	e.send(c.stored, float64(p.Info.Stored), name)
	e.send(c.objects, float64(p.Info.Mblocks), name, "mblock")
	e.send(c.objects, float64(p.Info.Mlogs), name, "mlog")
	e.send(c.poolHandles, float64(p.Handles), name)
	e.send(c.orphans, float64(p.Orphans), name)
	e.send(c.creditObjects, float64(p.Credits.Objects), name)
	e.send(c.creditDebtors, float64(p.Credits.Debtors), name)
	e.send(c.creditMessages, float64(p.Credits.Messages), name)
	e.send(c.fenced, float64(p.Credits.Fenced), name)
	e.oneOf(c.health, p.Info.Health, []string{"optimal", "degraded", "faulted"}, name)
	e.send(c.readOnly, boolean(p.Info.State == "read-only"), name)
	e.send(c.table, float64(p.TableBytes), name)
	e.send(c.sums, float64(p.SumBytes), name)
	for i := range p.Drives {
		c.driveCounters(e, name, &p.Drives[i])
	}
	for i := range p.Info.Drives {
		d := &p.Info.Drives[i]
		path := d.Path
		if path == "" {
			path = d.UUID // it is missing
		}
		e.oneOf(c.driveState, d.State, []string{"online", "missing", "failed"}, name, path)
		e.send(c.driveSize, float64(d.Size), name, path, d.Class.String())
		e.send(c.driveFree, float64(d.Free), name, path, d.Class.String())
	}
}

func (c *collector) driveCounters(e emitter, pool string, d *server.DriveSnapshot) {
	e.send(c.driveOps, float64(d.Reads), pool, d.Path, "read")
	e.send(c.driveOps, float64(d.Writes), pool, d.Path, "write")
	e.send(c.driveOps, float64(d.Flushes), pool, d.Path, "flush")
	e.send(c.driveOps, float64(d.Discards), pool, d.Path, "discard")
	e.send(c.driveBytes, float64(d.ReadBytes), pool, d.Path, "read")
	e.send(c.driveBytes, float64(d.WriteBytes), pool, d.Path, "write")
	e.send(c.driveErrors, float64(d.Errors), pool, d.Path)
	e.send(c.flushFails, float64(d.FlushFailures), pool, d.Path)
	e.send(c.inFlight, float64(d.InFlight), pool, d.Path)
}
