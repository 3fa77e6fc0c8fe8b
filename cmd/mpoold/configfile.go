package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxConfig bounds the configuration file, in bytes.
const maxConfig = 1 << 20

// load reads a configuration file over the defaults; "" is no file. A key that
// is not known is an error, as is a value that cannot be. The error names file,
// line and key of all that is wrong.
func load(path string) (config, error) {
	c := defaults()
	if path == "" {
		return c, nil
	}
	b, err := readConfig(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, c.decode(path, b)
}

// readConfig reads a file of at most maxConfig bytes.
func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("%s has more than %d bytes", path, maxConfig)
	}
	return b, errors.Join(err, f.Close())
}

// decode takes what a file says over what the configuration is.
func (c *config) decode(path string, b []byte) error {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return decodeError(path, err)
	}
	problems := c.problems()
	lines := keyLines(b)
	slices.SortStableFunc(problems, func(a, b problem) int {
		return cmp.Compare(lineOf(lines, a.key), lineOf(lines, b.key))
	})
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = fmt.Errorf("%s: %v", place(path, lineOf(lines, p.key)), p)
	}
	return errors.Join(errs...)
}

// place names a line of a file.
func place(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// decodeError makes an error of the decoder a sentence.
func decodeError(path string, err error) error {
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var errs []error
		for i := range unknown.Errors {
			e := &unknown.Errors[i]
			line, _ := e.Position()
			errs = append(errs, fmt.Errorf("%s: %s: there is no such key; mpoold --print-config shows all", place(path, line), strings.Join(e.Key(), ".")))
		}
		return errors.Join(errs...)
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		text := strings.TrimPrefix(wrong.Error(), "toml: ")
		key := strings.Join(wrong.Key(), ".")
		if key == "" {
			return fmt.Errorf("%s: %s", place(path, line), text)
		}
		if better := mismatch(text); better != "" {
			return fmt.Errorf("%s: %s %s", place(path, line), key, better)
		}
		return fmt.Errorf("%s: %s: %s", place(path, line), key, text)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// mismatch says in TOML's words that a value is of another type than is wanted,
// which the decoder says in Go's; "" if it is something else that is wrong.
func mismatch(text string) string {
	m := regexp.MustCompile(`^cannot (?:decode|store) TOML (\w+) into .* of type (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	want := m[2]
	switch want {
	case "int", "int64":
		want = "an integer"
	case "bool":
		want = "true or false"
	case "string":
		want = "a string"
	case "main.duration":
		want = `a duration in a string, such as "5s"`
	}
	if strings.HasPrefix(want, "[]") {
		want = "an array"
	}
	return fmt.Sprintf("is a TOML %s: want %s", m[1], want)
}

// keyLines returns the line on which each key of a document is first set, by
// its path as problem.key has it, tables and elements of arrays of tables too.
func keyLines(b []byte) map[string]int {
	lines := make(map[string]int)
	counts := make(map[string]int) // elements of arrays of tables so far
	prefix := ""
	var p unstable.Parser
	p.Reset(b)
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		line := 0
		for it := e.Key(); it.Next(); {
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
			parts = append(parts, string(it.Node().Data))
		}
		key := strings.Join(parts, ".")
		if e.Kind == unstable.ArrayTable {
			key, counts[key] = fmt.Sprintf("%s[%d]", key, counts[key]), counts[key]+1
		}
		if e.Kind == unstable.ArrayTable || e.Kind == unstable.Table {
			prefix = key + "."
		} else {
			key = prefix + key
		}
		if lines[key] == 0 {
			lines[key] = line
		}
	}
	return lines
}

// lineOf returns the line of a key, or of what it stands in, or 0.
func lineOf(lines map[string]int, key string) int {
	for key != "" {
		if line := lines[key]; line != 0 {
			return line
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 0
}
