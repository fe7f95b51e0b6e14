package functionstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// record is the result of a function for an event, as text: its writes and
// outputs in order, or why there are none. Processes exchange records.
type record struct {
	Parts    []part
	Rejected string // the reason of a rejection
	Broken   string // a fault of the function itself

	// Canonical is the SHA-256 of the canonical form, which detects clusters
	// that computed different effects.
	Canonical [sha256.Size]byte
}

// part is one write or one output.
type part struct {
	Head   string
	Fields []field
}

// field is a named value. Two fields are equal if and only if the database or a
// consumer could not distinguish them.
type field struct {
	Name  string
	Value string
}

func (r record) equal(other record) bool {
	return r.Rejected == other.Rejected && r.Broken == other.Broken && r.Canonical == other.Canonical &&
		slices.EqualFunc(r.Parts, other.Parts, func(a, b part) bool {
			return a.Head == b.Head && slices.Equal(a.Fields, b.Fields)
		})
}

// recordOf returns the record of f's result for e.
func recordOf(f *functions.Function, e event.Event, fx functions.Effects, err error) record {
	var rejected *functions.RejectError
	switch {
	case errors.As(err, &rejected):
		return record{Rejected: err.Error()}
	case err != nil:
		return record{Broken: "it returned an error that is not a rejection: " + err.Error()}
	}
	canonical, _, err := fx.AppendCanonical(nil)
	if err != nil {
		return record{Broken: err.Error()}
	}
	r := record{Canonical: sha256.Sum256(canonical)}
	for i, w := range fx.Writes {
		p, ok := writePart(w)
		if !ok {
			return record{Broken: fmt.Sprintf("write %d, table %s: there is no operation %d", i, w.Table, w.Op)}
		}
		r.Parts = append(r.Parts, p)
	}
	for i, o := range fx.Outputs {
		out, err := o.Event(f.Name, e, i)
		if err != nil {
			return record{Broken: err.Error()}
		}
		r.Parts = append(r.Parts, outputPart(out))
	}
	return r
}

func writePart(w functions.Write) (p part, ok bool) {
	switch w.Op {
	case functions.OpInsert:
		p.Head = "insert into " + w.Table + ", first wins"
	case functions.OpAdd:
		p.Head = "add to " + w.Table
	case functions.OpReplace:
		p.Head = "upsert into " + w.Table + ", replace"
	case functions.OpNewest:
		p.Head = "upsert into " + w.Table + ", newest " + w.Version + " wins"
	case functions.OpOldest:
		p.Head = "upsert into " + w.Table + ", oldest " + w.Version + " wins"
	case functions.OpMax:
		p.Head = "upsert into " + w.Table + ", max"
	case functions.OpMin:
		p.Head = "upsert into " + w.Table + ", min"
	case functions.OpDelete:
		p.Head = "delete from " + w.Table
	case functions.OpDeleteNewest:
		p.Head = "delete from " + w.Table + ", newest " + w.Version + " wins"
	case functions.OpExec:
		p.Head = "exec " + w.Statement.Name
		p.Fields = append(p.Fields, field{"sql", strings.Join(strings.Fields(w.Statement.SQL), " ")})
		for i, arg := range w.Args {
			p.Fields = append(p.Fields, field{"$" + strconv.Itoa(i+1), textOf(arg)})
		}
	default:
		return p, false
	}
	for _, columns := range [...]struct {
		prefix string
		row    functions.Row
	}{{"key ", w.Key}, {"", w.Row}} {
		for _, column := range slices.Sorted(maps.Keys(columns.row)) {
			p.Fields = append(p.Fields, field{columns.prefix + column, textOf(columns.row[column])})
		}
	}
	return p, true
}

func outputPart(e event.Event) part {
	p := part{Head: "emit " + e.Type()}
	add := func(name, value string) {
		if value != "" {
			p.Fields = append(p.Fields, field{name, value})
		}
	}
	add("source", e.Source())
	add("id", e.ID())
	if at := e.Time(); !at.IsZero() {
		add("time", at.Format(time.RFC3339Nano))
	}
	add("subject", e.Subject())
	extensions := e.Extensions()
	for _, name := range slices.Sorted(maps.Keys(extensions)) {
		add(name, fmt.Sprint(extensions[name]))
	}
	add("datacontenttype", e.DataContentType())
	if data := e.Data(); e.DataBase64 || !utf8.Valid(data) {
		add("data in base64", base64.StdEncoding.EncodeToString(data))
	} else {
		add("data", string(data))
	}
	return p
}

// textOf formats a value so that different texts are different values for the
// database: a time in UTC, because it is stored in UTC, and a number of any type
// alike. The value has a canonical form.
func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []byte:
		return "bytes " + base64.StdEncoding.EncodeToString(v)
	case json.RawMessage:
		return string(v)
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.String:
		return strconv.Quote(rv.String())
	case reflect.Pointer:
		if rv.IsNil() {
			return "null"
		}
		return textOf(rv.Elem().Interface())
	case reflect.Float32, reflect.Float64:
		// The text is not JSON, which has no infinities.
		return strconv.FormatFloat(rv.Float(), 'g', -1, 64)
	case reflect.Slice:
		if rv.IsNil() {
			return "null"
		}
		texts := make([]string, rv.Len())
		for i := range texts {
			texts[i] = textOf(rv.Index(i).Interface())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	default:
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T %v", v, v)
	}
	return string(text)
}
