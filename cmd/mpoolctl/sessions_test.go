package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
	"github.com/mpool-go/mpool/ioctl"
	"github.com/mpool-go/mpool/layout"
)

func TestClientList(t *testing.T) {
	d := newFakeSessions()
	lines := strings.Split(strings.TrimSpace(ok(t, d, "--json", "client", "list")), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	want := clientView{
		PID: 4711, UID: 1000, GID: 100, Comm: "kv\x1b[2J", Session: 1, Connected: "2026-11-21T09:30:00.5Z", Handles: 2,
		Uncommitted: 2, MblocksUncommitted: 1, MemoryBytes: 4 << 20, InFlight: 3, Requests: 12,
	}
	if diff := cmp.Diff(want, decode[clientView](t, lines[0])); diff != "" {
		t.Error(diff)
	}
	v := decode[map[string]any](t, lines[0])
	if m := missingFields(v, "pid uid comm connected handles mblocks_uncommitted memory_bytes requests"); m != nil {
		t.Errorf("no %v", m)
	}
	out := ok(t, d, "client", "list")
	if strings.Contains(out, "\x1b") || !strings.Contains(out, `"kv\x1b[2J"`) {
		t.Errorf("a process's name reaches the terminal as it is: %q", out)
	}
	if got := ok(t, d, "-q", "client", "list"); got != "4711\n4711\n9\n" {
		t.Errorf("quiet: %q", got)
	}
}

func TestClientShow(t *testing.T) {
	d := newFakeSessions()
	lines := strings.Split(strings.TrimSpace(ok(t, d, "--json", "client", "show", "4711")), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d sessions: %q", len(lines), lines)
	}
	first, second := decode[clientHolds](t, lines[0]), decode[clientHolds](t, lines[1])
	want := []handleView{
		{PID: 4711, Session: 1, Handle: "0010000000000001", Kind: "pool", Pool: "data"},
		{
			PID: 4711, Session: 1, Handle: "0020000000000002", Kind: "mblock", Pool: "data", Object: "0100000000000007",
			Refs: 3, State: "committed",
		},
	}
	if diff := cmp.Diff(want, first.Holds); diff != "" {
		t.Error(diff)
	}
	if first.Session != 1 || second.Session != 2 || !strings.Contains(lines[1], `"holds":[]`) {
		t.Errorf("%q", lines)
	}
	if out := ok(t, d, "client", "show", "4711"); !strings.Contains(out, "0100000000000007  committed  3\n") {
		t.Errorf("%s", out)
	}
	if r := ctl(t, d, "", "client", "show", "5"); r.code != exitFailed || !strings.Contains(r.errOut, "(ENOENT)") {
		t.Errorf("a process that is not there: %+v", r)
	}
	for _, pid := range []string{"0", "-1", "kv", "99999999999"} {
		if r := ctl(t, d, "", "client", "show", "--", pid); r.code != exitUsage {
			t.Errorf("process %s: %+v", pid, r)
		}
	}
}

func TestHandleList(t *testing.T) {
	d := newFakeSessions()
	for args, want := range map[string]int{
		"": 3, "data": 2, "logs": 1, "--pid 9": 1, "data --pid 9": 0, "data --pid=4711": 2,
	} {
		out := ok(t, d, append([]string{"--json", "handle", "list"}, strings.Fields(args)...)...)
		if n := strings.Count(out, "\n"); n != want {
			t.Errorf("%q: %d handles, want %d: %s", args, n, want, out)
		}
	}
	out := ok(t, d, "--json", "handle", "list", "data")
	v := decode[map[string]any](t, strings.Split(out, "\n")[1])
	if m := missingFields(v, "pid handle object kind refs state"); m != nil {
		t.Errorf("no %v", m)
	}
	d.err = api.Errorf(api.ECONNRESET, "handle list", "the connection to the daemon is gone")
	r := ctl(t, d, "", "--json", "handle", "list")
	if r.code != exitFailed || strings.Count(r.out, "\n") != 4 || !strings.Contains(r.out, `{"error":{"code":"ECONNRESET"`) {
		t.Errorf("an error after some: %+v", r)
	}
}

// follow runs event follow until there are no more events, then interrupts it.
func follow(t *testing.T, d *fakeDaemon, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	d.idle = func() { cancel(api.Errorf(api.ECANCELED, "", "interrupted")) }
	return ctlContext(ctx, d, strings.NewReader(""), append([]string{"event", "follow"}, args...)...)
}

func TestEventFollow(t *testing.T) {
	d := newFakeDaemon("data")
	at := time.Date(2026, 11, 21, 9, 30, 0, 0, time.UTC)
	d.events = []fakeEvent{
		{event: client.Event{Seq: 1, Time: at, Type: ioctl.EventPoolActivated, Pool: "data"}},
		{gap: &client.EventGap{After: 1, Missed: 5}},
		{event: client.Event{
			Seq: 7, Time: at.Add(time.Hour), Type: ioctl.EventClientReaped, Session: 3, PID: 4711, UID: 1000, Comm: "kv",
			Cause: ioctl.CauseSignal, Signal: 9, DetectedBy: ioctl.SourcePidfd, Aborted: 2, References: 3,
			Latency: 1500 * time.Microsecond, Exit: 5e9, Free: 5e9 + 270e3,
		}},
		{event: client.Event{
			Seq: 8, Time: at.Add(2 * time.Hour), Type: ioctl.EventCorruption, Pool: "data", Device: "/dev/sdz", Offset: 0,
			Object: layout.NewObjectID(layout.KindMblock, 7), Text: "block 3 is not what was written",
		}},
		{event: client.Event{
			Seq: 9, Time: at.Add(3 * time.Hour), Type: ioctl.EventRevoked, Pool: "data", Session: 4, PID: 4712, Comm: "kv",
			Object: layout.NewObjectID(layout.KindMblock, 7), Text: "it was taken",
		}},
	}
	r := follow(t, d, "--json", "--since", "2026-11-21T09:00:00Z")
	if r.code != exitDone || r.errOut != "mpoolctl: event follow: 5 events after number 1 are missing: the daemon did not keep them\n" {
		t.Fatalf("%+v", r)
	}
	// The gap has the time at which it was seen.
	lines := strings.SplitAfter(r.out, "\n")
	gap := decode[eventView](t, lines[1])
	if gap.Type != eventsMissed || gap.Seq != 1 || gap.Missed == nil || *gap.Missed != 5 || gap.Time == "" {
		t.Errorf("the gap is %s", lines[1])
	}
	want := `{"seq":1,"time":"2026-11-21T09:30:00Z","type":"pool_activated","pool":"data"}
{"seq":7,"time":"2026-11-21T10:30:00Z","type":"client_reaped","session":3,"pid":4711,"uid":1000,"comm":"kv",` +
		`"cause":"signal","code":0,"signal":9,"core":false,"detected_by":"pidfd","aborted":2,"references":3,` +
		`"reservations":0,"credits":0,"latency_us":1500,"free_us":270,"free_monotonic_ns":5000270000}
{"seq":8,"time":"2026-11-21T11:30:00Z","type":"corruption","pool":"data","object":"0100000000000007",` +
		`"device":"/dev/sdz","offset":0,"text":"block 3 is not what was written"}
{"seq":9,"time":"2026-11-21T12:30:00Z","type":"revoked","pool":"data","object":"0100000000000007",` +
		`"text":"it was taken","session":4,"pid":4712,"uid":0,"comm":"kv"}
`
	if diff := cmp.Diff(want, strings.Join(slices.Delete(lines, 1, 2), "")); diff != "" {
		t.Error(diff)
	}
	r = follow(t, d, "--since", "2026-11-21T10:00:00Z")
	wantText := `TIME                            TYPE              WHAT
2026-11-21T10:30:00Z            client_reaped     process 4711 (kv) was killed by SIGKILL; 2 objects aborted, ` +
		`3 references given back, within 1500 µs of notice by pidfd
2026-11-21T11:30:00Z            corruption        pool data, object 0100000000000007, at /dev/sdz+0: block 3 is not what was written
2026-11-21T12:30:00Z            revoked           pool data, object 0100000000000007, process 4712 (kv): it was taken
`
	if diff := cmp.Diff(wantText, r.out); diff != "" {
		t.Error(diff)
	}
	if r := follow(t, d); r.code != exitDone || r.out != "" {
		t.Errorf("without --since it shows what was before: %+v", r)
	}
	for _, since := range []string{"", "yesterday", "-10m", "10", "2026-11-21", "0001-01-01T00:00:00Z"} {
		if r := ctl(t, d, "", "event", "follow", "--since="+since); r.code != exitUsage {
			t.Errorf("--since %q: %+v", since, r)
		}
	}
	d.err = api.Errorf(api.ECONNRESET, "event next", "the connection to the daemon is gone")
	if r := ctl(t, d, "", "event", "follow"); r.code != exitFailed || !strings.Contains(r.errOut, "(ECONNRESET)") {
		t.Errorf("the daemon's end: %+v", r)
	}
}

func TestSinceADuration(t *testing.T) {
	var v sinceValue
	if err := v.Set("10m"); err != nil {
		t.Fatal(err)
	}
	if ago := time.Since(v.time); ago < 10*time.Minute || ago > 11*time.Minute {
		t.Errorf("10m is %v ago", ago)
	}
}

func TestHoldersAreNamed(t *testing.T) {
	err := &api.Error{
		Code: api.EBUSY, Op: "mblock delete", Detail: "others use the object",
		Holders: []api.Holder{{PID: 9, References: 1}, {PID: 0, References: 2}, {PID: 9, References: 1}},
	}
	got := failureOf("mblock delete", err).sentence()
	want := "others use the object; held by process 9 (2 references), a process that is not shown (2 references)"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A daemon that has the socket and says nothing, as one that was stopped, does not
// hold a verb for ever: it ends as without a daemon, and says what is the matter.
func TestHangingDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out, errOut strings.Builder
	a := &app{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errOut, terminal: func(any) bool { return false },
		dial: func(ctx context.Context, o client.Options) (daemon, error) {
			if o.Hello != helloPatience {
				t.Errorf("it waits %v", o.Hello)
			}
			o.Hello = 10 * time.Millisecond
			return dialDaemon(ctx, o)
		},
	}
	code := a.execute(t.Context(), []string{"--socket", path, "--json", "client", "list"})
	if code != exitNoDaemon || !strings.Contains(errOut.String(), "nobody answers on it in 10ms") ||
		!strings.Contains(out.String(), `{"error":{"code":"ECONNRESET"`) {
		t.Errorf("exit %d: %s%s", code, &out, &errOut)
	}
}

// client show of a process of which sessions and handles come and go meanwhile
// gives each session that is listed what is its own.
func TestClientShowInOrder(t *testing.T) {
	d := newFakeSessions()
	gone := d.handles[0]
	gone.Session = 0 // it was there when the handles were listed
	late := d.handles[0]
	late.Session = 9 // it was not yet there when the sessions were
	mine := d.handles[0]
	mine.Session = 2
	d.handles = []client.HandleInfo{gone, d.handles[0], mine, late}
	lines := strings.Split(strings.TrimSpace(ok(t, d, "--json", "client", "show", "4711")), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	for i, l := range lines {
		if v := decode[clientHolds](t, l); len(v.Holds) != 1 || v.Holds[0].Session != uint64(i+1) {
			t.Errorf("session %d holds %+v", i+1, v.Holds)
		}
	}
	d.err = errors.New("broken")
	if r := ctl(t, d, "", "client", "show", "4711"); r.code != exitFailed {
		t.Errorf("a list that breaks: %+v", r)
	}
}
