package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"
)

// ReadEnvironment fills those fields of target, a pointer to a struct, that have a
// tag of go-envconfig. The error names every variable that is missing or cannot be
// read, and says what is wanted.
func ReadEnvironment(ctx context.Context, lookup envconfig.Lookuper, target any) error {
	into := reflect.ValueOf(target).Elem()
	var errs []error
	for i := range into.NumField() {
		field := into.Type().Field(i)
		tag, ok := field.Tag.Lookup("env")
		if !ok {
			continue
		}
		// One by one: go-envconfig's errors name the field, and only the first.
		one := reflect.New(reflect.StructOf([]reflect.StructField{{Name: field.Name, Type: field.Type, Tag: field.Tag}}))
		err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: one.Interface(), Lookuper: lookup})
		variable, _, _ := strings.Cut(tag, ",")
		value, _ := lookup.Lookup(variable)
		switch {
		case err == nil:
			into.Field(i).Set(one.Elem().Field(0))
		case errors.Is(err, envconfig.ErrMissingRequired):
			errs = append(errs, fmt.Errorf("%s: missing", variable))
		default:
			errs = append(errs, fmt.Errorf("%s %q: want %s", variable, value, wanted(field.Type)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("read environment: %w", err)
	}
	return nil
}

// wanted says for people what is read as a type.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[slog.Level]():
		return "debug, info, warn or error"
	case t == reflect.TypeFor[time.Duration]():
		return "a duration like 300ms or 15m"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return "a whole number"
	}
	return "a " + t.String()
}
