package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Line is one thing that a dump found, with what belongs to it. As text it is
//
//	type name=value name=value
//
// indented below what it belongs to; as JSON an object of these names, with the
// type as "type". Numbers that may have more than 53 bits of meaning (birth
// stamps, tags) and object ids are hex digits in a string.
type Line struct {
	Type   string
	Depth  int
	Fields []Field
}

// Field is a name and a value: a string, an integer, a boolean, or a slice of
// such.
type Field struct {
	Name  string
	Value any
}

// String returns the line without its end.
func (l *Line) String() string {
	var b strings.Builder
	b.WriteString(strings.Repeat("  ", l.Depth))
	b.WriteString(l.Type)
	for _, f := range l.Fields {
		v := fmt.Sprint(f.Value)
		if s, ok := f.Value.(string); ok && (s == "" || strings.ContainsAny(s, " \"=") || strconv.Quote(s) != `"`+s+`"`) {
			v = strconv.Quote(s)
		}
		fmt.Fprintf(&b, " %s=%s", f.Name, v)
	}
	return b.String()
}

// MarshalJSON returns the line as one object, its fields in order.
func (l *Line) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, f := range append([]Field{{"type", l.Type}}, l.Fields...) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", f.Name)
		if err := enc.Encode(f.Value); err != nil {
			return nil, fmt.Errorf("field %s of %s: %w", f.Name, l.Type, err)
		}
		b.Truncate(b.Len() - 1) // the encoder's end of line
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// fields makes fields of names and values in turn.
func fields(pairs ...any) []Field {
	list := make([]Field, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		list = append(list, Field{Name: name, Value: pairs[i+1]})
	}
	return list
}

// hex shows a number of which all 64 bits may mean something.
func hex(v uint64) string { return fmt.Sprintf("%#016x", v) }
