package main

import (
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "64KiB": 64 << 10, "64 KiB": 64 << 10, "1MiB": 1 << 20, "3GiB": 3 << 30, "2TiB": 2 << 40,
		"5KB": 5000, "5MB": 5e6, "5GB": 5e9, "5TB": 5e12, "1.5GiB": 3 << 29, "0.5KB": 500, "7B": 7, "1mib": 1 << 20,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "KiB", "-1", "1.2.3MiB", "12XB", "1K", "1M", "0.3B", "9999999TiB", "99999999999999999999", "1 2", "MiB1", "1e3",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 64 << 20: "64 MiB",
		1<<30 - 1: "1024 MiB", 10<<20 + 1<<19: "10.5 MiB", 123456789: "118 MiB", 5 << 40: "5 TiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"1", "1.5GiB", "64KiB", "0.0001KB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err == nil && (n < 0 || strings.ContainsAny(s, "-+eExX_")) {
			t.Fatalf("%q is %d", s, n)
		}
	})
}
