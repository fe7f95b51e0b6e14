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

// ReadEnvironment sets the fields of target, a pointer to a struct, that have a tag of
// go-envconfig: `env:"NAME, default=VALUE"` or `env:"NAME, required"`. White space
// around a value, and around the elements of a list, is ignored; an empty variable
// counts as unset. The error names every missing or invalid variable, and the wanted
// values.
func ReadEnvironment(ctx context.Context, lookup envconfig.Lookuper, target any) error {
	into := reflect.ValueOf(target).Elem()
	var errs []error
	for i := range into.NumField() {
		field := into.Type().Field(i)
		tag, ok := field.Tag.Lookup("env")
		if !ok {
			continue
		}
		// One field at a time: go-envconfig's errors name the field, and only the
		// first.
		one := reflect.New(reflect.StructOf([]reflect.StructField{{Name: field.Name, Type: field.Type, Tag: field.Tag}}))
		err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: one.Interface(), Lookuper: trimmed{lookup}})
		variable, _, _ := strings.Cut(tag, ",")
		switch {
		case err == nil:
			value := one.Elem().Field(0)
			if list, ok := value.Interface().([]string); ok {
				for i := range list {
					list[i] = strings.TrimSpace(list[i])
				}
			}
			into.Field(i).Set(value)
		case errors.Is(err, envconfig.ErrMissingRequired):
			errs = append(errs, fmt.Errorf("%s: missing", variable))
		default:
			value, _ := lookup.Lookup(variable)
			errs = append(errs, fmt.Errorf("%s %q: want %s", variable, value, wanted(field.Type)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("read environment: %w", err)
	}
	return nil
}

// trimmed looks up variables without the white space around them.
type trimmed struct{ envconfig.Lookuper }

// Lookup implements [envconfig.Lookuper].
func (t trimmed) Lookup(name string) (value string, found bool) {
	value, _ = t.Lookuper.Lookup(name)
	value = strings.TrimSpace(value)
	return value, value != ""
}

// wanted describes, for an error, the accepted values of a t.
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
