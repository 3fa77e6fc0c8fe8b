package main

import (
	"strings"
	"testing"
)

func TestCompletesPools(t *testing.T) {
	d := newFakeDaemon("data", "logs")
	for args, want := range map[string]string{
		"pool show":     "data logs",
		"mblock put":    "data logs",
		"pool rename":   "data logs",
		"pool create":   "",
		"pool activate": "",
		"mblock get":    "data logs",
	} {
		out := ok(t, d, append([]string{"__complete"}, append(strings.Fields(args), "")...)...)
		var got []string
		for l := range strings.Lines(out) {
			if !strings.HasPrefix(l, ":") {
				got = append(got, strings.TrimSpace(l))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
