package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// format is the output format of a command: a table by default, or one JSON object per
// line. It is the value of a flag.
type format struct{ json bool }

// String implements pflag.Value.
func (f *format) String() string {
	if f.json {
		return "json"
	}
	return "table"
}

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	if text != "json" && text != "table" {
		return errors.New("want table or json")
	}
	f.json = text == "json"
	return nil
}

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// printJSON prints v as one line.
func (t *tool) printJSON(v any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// print prints text, unless the output is JSON. A terminal interprets nothing in it.
func (t *tool) print(format string, args ...any) error {
	_, err := io.WriteString(t.out, printable(fmt.Sprintf(format, args...)))
	return err
}

// printf prints text, unless the output is JSON; a later line returns the error of a
// failed write.
func (t *tool) printf(format string, args ...any) { _ = t.print(format, args...) }

// maxCell is the maximum length of a table's cell, in runes.
const maxCell = 60

// row writes a row of a table.
func row(table io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = clip(cell)
	}
	_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
}

// clip shortens a text to the length of a table's cell and removes line breaks.
func clip(text string) string {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	runes := []rune(strings.Join(strings.Fields(printable(text)), " "))
	if len(runes) > maxCell {
		runes = append(runes[:maxCell-1], '…')
	}
	return indent + string(runes)
}

// printable replaces characters that a terminal would interpret: attributes of events
// and reasons of functions are untrusted.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// number returns n as text; 0 means unknown and returns a dash.
func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
