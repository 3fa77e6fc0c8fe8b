package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/mpool-go/mpool/api"
	"github.com/mpool-go/mpool/client"
)

// reportedError is returned when the verb has already printed, as its result,
// what is wrong; only the sentence on stderr is missing.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// verbError marks an error of a verb's run function.
type verbError struct{ err error }

func (e *verbError) Error() string { return e.err.Error() }
func (e *verbError) Unwrap() error { return e.err }

// usageError is a mistake in the command line that only run can see.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// usagef makes a usageError.
func usagef(format string, args ...any) error {
	return usageError{text: fmt.Sprintf(format, args...)}
}

// failureView is an error as --json shows it.
type failureView struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Op      string  `json:"op,omitempty"`
	Object  string  `json:"object,omitempty"`
	Device  string  `json:"device,omitempty"`
	Offset  *int64  `json:"offset,omitempty"`
	Want    int64   `json:"want,omitempty"`
	Have    *int64  `json:"have,omitempty"`
	Longest *int64  `json:"longest,omitempty"`
	Records *uint64 `json:"records,omitempty"` // EUNKNOWN of an append: those below are durable

	// What a limit refuses. EDQUOT: whose ("" is all owners together) and of which class;
	// EAGAIN of a scope: of which kind.
	Class string     `json:"class,omitempty"`
	Owner *string    `json:"owner,omitempty"`
	Scope string     `json:"scope,omitempty"`
	Kind  string     `json:"kind,omitempty"`
	Used  *int64     `json:"used,omitempty"`
	Asked *int64     `json:"asked,omitempty"`
	Limit *limitJSON `json:"limit,omitempty"`

	Holders []holderView `json:"holders,omitempty"`
}

type holderView struct {
	PID        int32  `json:"pid"` // 0: not shown to this caller
	References uint32 `json:"references"`
}

// codeOf is api.CodeOf that also knows the errors of local files.
func codeOf(err error) api.Code {
	var e *api.Error
	var c api.Code
	switch {
	case errors.As(err, &e), errors.As(err, &c):
		return api.CodeOf(err)
	case errors.Is(err, client.ErrNoDaemon):
		return api.ECONNRESET
	case errors.Is(err, fs.ErrNotExist):
		return api.ENOENT
	case errors.Is(err, fs.ErrExist):
		return api.EEXIST
	case errors.Is(err, fs.ErrPermission):
		return api.EPERM
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.ENOSPC
	case errors.Is(err, syscall.EROFS):
		return api.EROFS
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return api.ENOMEM
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return api.EINVAL
	}
	return api.CodeOf(err)
}

// failureOf describes err. verb is the noun and verb that failed; an operation
// of the same name at the beginning of the message would say it twice.
func failureOf(verb string, err error) failureView {
	code := codeOf(err)
	v := failureView{Code: code.Error()}
	v.Message = strings.TrimSuffix(err.Error(), fmt.Sprintf(" (%v)", code))
	if rest, ok := strings.CutPrefix(v.Message, verb); ok && verb != "" {
		v.Message = strings.TrimPrefix(strings.TrimPrefix(rest, ":"), " ")
	}
	var e *api.Error
	if !errors.As(err, &e) {
		return v
	}
	v.Op, v.Device, v.Want = e.Op, e.Device, e.Want
	if e.Object != 0 {
		v.Object = e.Object.String()
	}
	if e.Device != "" {
		v.Offset = &e.Offset
	}
	if e.Code == api.ENOSPC && e.Want != 0 {
		v.Have, v.Longest = &e.Have, &e.Longest
	}
	if e.Code == api.EUNKNOWN && e.Records != 0 {
		v.Records = &e.Records
	}
	if r := e.Refusal; r != nil {
		limit := limitJSON(r.Limit)
		v.Used, v.Asked, v.Limit = &r.Used, &r.Asked, &limit
		if code == api.EAGAIN {
			v.Scope, v.Kind = r.Owner, r.Class
		} else {
			v.Class, v.Owner = r.Class, &r.Owner
		}
	}
	for _, h := range e.Holders {
		v.Holders = append(v.Holders, holderView(h))
	}
	return v
}

// sentence is the message with what people want to know beside it: who holds
// what cannot be had.
func (v failureView) sentence() string {
	var held []string
	for _, h := range byProcess(v.Holders) {
		who := "a process that is not shown"
		switch int(h.PID) {
		case 0:
		case os.Getpid():
			who = "this command"
		default:
			who = fmt.Sprintf("process %d", h.PID)
		}
		held = append(held, fmt.Sprintf("%s (%s)", who, plural(int(h.References), "reference")))
	}
	s := oneLine(v.Message)
	if len(held) > 0 {
		s += "; held by " + strings.Join(held, ", ")
	}
	return s
}

// byProcess adds up the references of each process, in the order in which they
// are named first.
func byProcess(holders []holderView) []holderView {
	var sums []holderView
	for _, h := range holders {
		i := slices.IndexFunc(sums, func(s holderView) bool { return s.PID == h.PID })
		if i < 0 {
			sums = append(sums, h)
			continue
		}
		sums[i].References += h.References
	}
	return sums
}

// oneLine keeps a sentence on its line: several errors that were joined, or a
// name with control characters in it, do not break it up.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(s, "\n", "; ") {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// reportFailure prints the error of an operation: the sentence on stderr and,
// with --json, the document on stdout. The streams are the last resort: what
// cannot be written to them cannot be said.
func (a *app) reportFailure(verb string, err error) {
	v := failureOf(verb, err)
	fmt.Fprintf(a.stderr, "mpoolctl: %s: %s (%s)\n", verb, v.sentence(), v.Code)
	if !a.json || a.dataWritten || errors.As(err, new(reportedError)) {
		return
	}
	_ = json.NewEncoder(a.stdout).Encode(map[string]failureView{"error": v}) //nolint:errcheck // see above
}

// reportUsage prints what is wrong with the command line.
func (a *app) reportUsage(verb string, cmd *cobra.Command, err error) {
	if verb != "" {
		verb += ": "
	}
	fmt.Fprintf(a.stderr, "mpoolctl: %s%v\n\nUsage: %s\nSee '%s --help'.\n",
		verb, err, cmd.UseLine(), cmd.CommandPath())
}
