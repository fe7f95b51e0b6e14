package config

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/otlptranslator"
)

var instrument = regexp.MustCompile(`^(Int64|Float64)(?:Observable)?(Counter|UpDownCounter|Gauge|Histogram)$`)

// Metrics returns the names of the programs' metrics in Prometheus, which the
// exporter derives from name and unit. They are read from the source code, so
// that every name exists.
func Metrics() (map[string]bool, error) {
	names := map[string]bool{}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	var errs []error
	for _, folder := range []string{"eventing", "functions", "sinkwriter"} {
		err := filepath.WalkDir(filepath.Join("..", "..", folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				name, unit, kind := instrumentOf(n)
				if name == "" {
					return true
				}
				types := map[string]otlptranslator.MetricType{
					"Counter": otlptranslator.MetricTypeMonotonicCounter, "UpDownCounter": otlptranslator.MetricTypeNonMonotonicCounter,
					"Gauge": otlptranslator.MetricTypeGauge, "Histogram": otlptranslator.MetricTypeHistogram,
				}
				built, err := namer.Build(otlptranslator.Metric{Name: name, Unit: unit, Type: types[kind]})
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", path, err))
				}
				names[built] = true
				if kind == "Histogram" {
					delete(names, built)
					names[built+"_bucket"], names[built+"_sum"], names[built+"_count"] = true, true, true
				}
				return true
			})
			return nil
		})
		errs = append(errs, err)
	}
	return names, errors.Join(errs...)
}

// instrumentOf returns the name, unit and kind of an instrument that a call
// creates; an empty name if n is not such a call.
func instrumentOf(n ast.Node) (name, unit, kind string) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", "", ""
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", "", ""
	}
	match := instrument.FindStringSubmatch(method.Sel.Name)
	if match == nil {
		return "", "", ""
	}
	for _, arg := range call.Args[1:] {
		option, ok := arg.(*ast.CallExpr)
		if !ok {
			continue
		}
		if f, ok := option.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "WithUnit" {
			unit = literal(option.Args[0])
		}
	}
	return literal(call.Args[0]), unit, match[2]
}

func literal(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return ""
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return text
}
