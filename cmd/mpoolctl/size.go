package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizeValue is a flag that holds a number of bytes.
type sizeValue int64

func (v *sizeValue) String() string {
	if *v == 0 {
		return ""
	}
	return formatSize(int64(*v))
}

func (v *sizeValue) Set(s string) error {
	n, err := parseSize(s)
	*v = sizeValue(n)
	return err
}

func (v *sizeValue) Type() string { return "SIZE" }

// sizeUnit gives the bytes of a unit written in lower case, or 0.
func sizeUnit(unit string) int64 {
	switch unit {
	case "", "b":
		return 1
	case "kib":
		return 1 << 10
	case "mib":
		return 1 << 20
	case "gib":
		return 1 << 30
	case "tib":
		return 1 << 40
	case "kb":
		return 1e3
	case "mb":
		return 1e6
	case "gb":
		return 1e9
	case "tb":
		return 1e12
	}
	return 0
}

// parseSize reads a size such as 4096, 64KiB, 1.5 GiB or 10MB. It must come to
// a whole number of bytes.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "KMGTIBkmgtib ")
	unit := sizeUnit(strings.ToLower(strings.TrimSpace(s[len(number):])))
	if number == "" || unit == 0 || strings.Trim(number, "0123456789.") != "" {
		return 0, fmt.Errorf("size %q: want a number of bytes or one with a unit: KiB MiB GiB TiB, KB MB GB TB", s)
	}
	whole, fraction, _ := strings.Cut(number, ".")
	if whole == "" {
		whole = "0"
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/unit-1 {
		return 0, fmt.Errorf("size %q is too large", s)
	}
	n *= unit
	if fraction == "" {
		return n, nil
	}
	f, err := strconv.ParseFloat("0."+fraction, 64)
	if err != nil {
		return 0, fmt.Errorf("size %q: want one decimal point at most", s)
	}
	part := f * float64(unit)
	if part != math.Trunc(part) {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", s)
	}
	return n + int64(part), nil
}

// formatSize writes a size for people: three digits or so and a unit.
func formatSize(n int64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for math.Abs(v) >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 99.95:
		return fmt.Sprintf("%.0f %s", v, units[i])
	case math.Abs(v) >= 9.995:
		return fmt.Sprintf("%.1f %s", v, units[i])
	default:
		return fmt.Sprintf("%.2f %s", v, units[i])
	}
}
