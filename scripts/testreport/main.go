// Command testreport turns the output of go test -json into a report: a line
// for each package, all output of what failed, and the reason of what was
// skipped. It adds the counts of tests to a file, so that several runs can be
// summed up:
//
//	go test -json ./... | testreport -counts FILE [-no-skip] [-skips FILE]
//
// It exits with 1 when a test or package failed and, with -no-skip, when one
// was skipped. With -skips, skipped tests are not counted at all but written to
// a file, one "package test" a line, to be run again in another build.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	counts := flag.String("counts", "", "add a line with the counts passed, failed and skipped to `FILE`")
	noSkip := flag.Bool("no-skip", false, "count a skipped test as failed")
	skips := flag.String("skips", "", "write skipped tests to `FILE` instead of counting them")
	flag.Parse()
	r := report{out: os.Stdout, noSkip: *noSkip, later: *skips != "", output: make(map[testID][]string), failedTests: make(map[string]bool)}
	err := r.read(os.Stdin)
	if *counts != "" {
		err = errors.Join(err, r.addCounts(*counts))
	}
	if *skips != "" {
		err = errors.Join(err, os.WriteFile(*skips, []byte(strings.Join(r.again, "")), 0o644))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || r.failed > 0 {
		os.Exit(1)
	}
}

// event is a line of go test -json.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package when a build fails
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// testID names a test, or with an empty test a whole package.
type testID struct{ pkg, test string }

type report struct {
	out    io.Writer
	noSkip bool
	later  bool // skipped tests are run again and count then

	again                   []string // skipped tests, a line each
	passed, failed, skipped int
	output                  map[testID][]string // of what has not ended yet
	failedTests             map[string]bool     // by package: a test of it has failed
}

// read reports on all events.
func (r *report) read(in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			r.printf("%s\n", s.Text()) // what the go command itself says
			continue
		}
		r.add(e)
	}
	return s.Err()
}

func (r *report) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[id] = append(r.output[id], e.Output)
	case "build-output":
		r.printf("%s", e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
		} else {
			r.printf("ok    %s (%.1f s)\n", e.Package, e.Elapsed)
		}
		delete(r.output, id)
	case "fail":
		r.fail(e, id)
	case "skip":
		r.skip(e, id)
	}
}

// fail prints what failed. A package without a failed test of its own did not
// build, crashed or ran out of time.
func (r *report) fail(e event, id testID) {
	if e.Test != "" {
		r.failed++
		r.failedTests[e.Package] = true
	} else if !r.failedTests[e.Package] {
		r.failed++
	}
	r.printf("FAIL  %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, strings.Join(r.output[id], ""))
	delete(r.output, id)
	if e.Test != "" {
		return
	}
	// Tests that had begun when the package's run ended.
	for open, lines := range r.output {
		if open.pkg == e.Package {
			r.printf("      %s had not ended:\n%s", open.test, strings.Join(lines, ""))
			delete(r.output, open)
		}
	}
}

// skip prints why a test was skipped. A package without tests is skipped, too,
// and not worth a line.
func (r *report) skip(e event, id testID) {
	lines := r.output[id]
	delete(r.output, id)
	if e.Test == "" {
		return
	}
	if r.later {
		test, _, _ := strings.Cut(e.Test, "/")
		r.again = append(r.again, e.Package+" "+test+"\n")
		return
	}
	var why []string
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			why = append(why, l)
		}
	}
	r.printf("SKIP  %s %s: %s\n", e.Package, e.Test, strings.Join(why, " "))
	if r.noSkip {
		r.failed++
		return
	}
	r.skipped++
}

// printf writes to the report. There is nowhere to say that this failed.
func (r *report) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format, args...)
}

// addCounts appends the counts to a file.
func (r *report) addCounts(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, r.passed, r.failed, r.skipped)
	return errors.Join(err, f.Close())
}
