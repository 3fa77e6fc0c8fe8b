package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mpool-go/mpool/client"
)

// eventView is an event as it is shown. What does not belong to its type is
// left out.
type eventView struct {
	Seq    uint64 `json:"seq"`
	Time   string `json:"time"`
	Type   string `json:"type"`
	Pool   string `json:"pool,omitempty"`
	Object string `json:"object,omitempty"`
	Device string `json:"device,omitempty"`
	Offset *int64 `json:"offset,omitempty"` // only with device
	Text   string `json:"text,omitempty"`
	// Missed is how many events after number Seq are lost; 0: not known.
	Missed *uint64 `json:"missed,omitempty"` // only of type events_missed
	*eventProcess
	*clientEnd
}

// eventProcess is the client process of which an event tells.
type eventProcess struct {
	Session uint64 `json:"session"`
	PID     int32  `json:"pid"`
	UID     uint32 `json:"uid"`
	Comm    string `json:"comm"`
}

// eventsMissed is the type of what stands in the place of events that are lost.
const eventsMissed = "events_missed"

func newGapView(gap *client.EventGap, now time.Time) eventView {
	return eventView{Seq: gap.After, Time: formatTime(now), Type: eventsMissed, Text: gap.Error(), Missed: &gap.Missed}
}

// clientEnd is how a client ended and what was taken back from it.
type clientEnd struct {
	Cause        string `json:"cause"`
	Code         int32  `json:"code"`
	Signal       int32  `json:"signal"`
	Core         bool   `json:"core"`
	DetectedBy   string `json:"detected_by"`
	Aborted      uint32 `json:"aborted"`
	References   uint32 `json:"references"`
	Reservations uint32 `json:"reservations"`
	Credits      uint32 `json:"credits"`
	LatencyUS    int64  `json:"latency_us"`
	// From when the kernel had its last thread exit until all its handles had ended; null
	// if the kernel has not said, or the process had left before. And when that was, in
	// ns of CLOCK_MONOTONIC.
	FreeUS *int64 `json:"free_us"`
	FreeAt int64  `json:"free_monotonic_ns"`
}

// clientReaped is the type of the events that have a client's end.
const clientReaped = "client_reaped"

func newEventView(e client.Event) eventView {
	v := eventView{
		Seq: e.Seq, Time: formatTime(e.Time), Type: e.Type.String(), Pool: e.Pool, Device: e.Device, Text: e.Text,
	}
	if e.Object != 0 {
		v.Object = e.Object.String()
	}
	if e.Device != "" {
		v.Offset = &e.Offset
	}
	if e.PID != 0 || v.Type == clientReaped {
		v.eventProcess = &eventProcess{Session: e.Session, PID: e.PID, UID: e.UID, Comm: e.Comm}
	}
	if v.Type == clientReaped {
		v.clientEnd = &clientEnd{
			Cause: e.Cause.String(), Code: e.Code, Signal: e.Signal, Core: e.Core,
			DetectedBy: e.DetectedBy.String(), Aborted: e.Aborted, References: e.References, Reservations: e.Reservations, Credits: e.Credits,
			LatencyUS: e.Latency.Microseconds(), FreeAt: e.Free,
		}
		if e.Exit != 0 && e.Free >= e.Exit {
			v.FreeUS = new(time.Duration(e.Free - e.Exit).Microseconds())
		}
	}
	return v
}

// sentence says for people what happened.
func (v eventView) sentence() string {
	var parts []string
	if v.Pool != "" {
		parts = append(parts, "pool "+v.Pool)
	}
	if v.Object != "" {
		parts = append(parts, "object "+v.Object)
	}
	if v.Device != "" {
		parts = append(parts, fmt.Sprintf("at %s+%d", v.Device, *v.Offset))
	}
	if v.eventProcess != nil {
		who := fmt.Sprintf("process %d (%s)", v.PID, v.Comm)
		if v.clientEnd != nil {
			who += " " + v.clientEnd.sentence()
		}
		parts = append(parts, who)
	}
	s := strings.Join(parts, ", ")
	switch {
	case v.Text == "":
		return s
	case s == "":
		return v.Text
	}
	return s + ": " + v.Text
}

// sentence goes on after the process's name.
func (c *clientEnd) sentence() string {
	how := "ended, nobody knows how"
	switch c.Cause {
	case "exit":
		how = fmt.Sprintf("exited with %d", c.Code)
	case "signal":
		how = "was killed by " + cmp.Or(unix.SignalName(unix.Signal(c.Signal)), fmt.Sprintf("signal %d", c.Signal))
		if c.Core {
			how += " and dumped its core"
		}
	case "closed":
		how = "closed its connection"
	}
	s := fmt.Sprintf("%s; %s aborted, %s given back", how, plural(int(c.Aborted), "object"), plural(int(c.References), "reference"))
	if c.Reservations > 0 {
		s += ", " + plural(int(c.Reservations), "reservation")
	}
	if c.Credits > 0 {
		s += ", " + plural(int(c.Credits), "credit")
	}
	return fmt.Sprintf("%s, within %d µs of notice by %s", s, c.LatencyUS, cmp.Or(c.DetectedBy, "nobody"))
}
