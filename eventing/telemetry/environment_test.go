package telemetry_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/telemetry"
)

type environment struct {
	Name     string        `env:"NAME, required"`
	Number   int           `env:"NUMBER, default=256"`
	Large    int64         `env:"LARGE"`
	Wait     time.Duration `env:"WAIT, default=15m"`
	Streams  []string      `env:"STREAMS, default=EVENTS"`
	Flag     bool          `env:"FLAG"`
	LogLevel slog.Level    `env:"LOG_LEVEL, default=info"`

	Made struct{ Name string } // derived
}

func TestTheEnvironmentIsReadWithDefaults(t *testing.T) {
	t.Parallel()

	var got environment
	err := telemetry.ReadEnvironment(t.Context(), envconfig.MapLookuper(map[string]string{"NAME": "east", "LARGE": "7", "FLAG": "true", "LOG_LEVEL": " warn\n", "STREAMS": "A, B", "NUMBER": " "}), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := environment{Name: "east", Number: 256, Large: 7, Wait: 15 * time.Minute, Streams: []string{"A", "B"}, Flag: true, LogLevel: slog.LevelWarn}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestEveryVariableThatIsWrongIsNamed(t *testing.T) {
	t.Parallel()

	err := telemetry.ReadEnvironment(t.Context(), envconfig.MapLookuper(map[string]string{"NAME": " ", "NUMBER": "many", "WAIT": "15", "FLAG": "perhaps", "LOG_LEVEL": "loud"}), &environment{})
	want := `read environment: NAME: missing
NUMBER "many": want a whole number
WAIT "15": want a duration like 300ms or 15m
FLAG "perhaps": want true or false
LOG_LEVEL "loud": want debug, info, warn or error`
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}
