package flights_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

func departed(id, data string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/tandem/flights-2001")
	e.SetType(flights.Departed)
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = []byte(data)
	return e
}

func TestEffectsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	functionstest.Check(t, flights.Function(), functionstest.Events(t, "testdata/events.json"))
}

func TestEffectsAreTheGoldenOnes(t *testing.T) {
	t.Parallel()
	functionstest.Golden(t, flights.Function(), functionstest.Events(t, "testdata/events.json"), "testdata/flights.golden")
}

func TestDelayOfAnHourIsEmitted(t *testing.T) {
	t.Parallel()

	for minutes, outputs := range map[int]int{-5: 0, 0: 0, 59: 0, 60: 1, 600: 1} {
		fx, err := flights.Function().Handle(t.Context(), departed("1",
			fmt.Sprintf(`{"date":"2001/01/01 00:47","delay":%d,"distance":1,"origin":"DTW","destination":"LAS"}`, minutes)))
		if err != nil {
			t.Fatal(err)
		}
		if len(fx.Outputs) != outputs {
			t.Errorf("a delay of %d minutes emits %d events, want %d", minutes, len(fx.Outputs), outputs)
		}
	}
}

func TestDataThatAreNotADepartureAreRejected(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, data, says string }{
		{"no data", ``, "there are none"},
		{"no JSON", `date`, "invalid character"},
		{"no object", `[]`, "it is an array: want an object"},
		{"no date", `{"delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`, "date: missing"},
		{"no origin", `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"destination":"LAS"}`, "origin: missing"},
		{"empty origin", `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"","destination":"LAS"}`, "origin: missing"},
		{"no destination", `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":null}`, "destination: missing"},
		{"no distance", `{"date":"2001/01/01 00:47","delay":66,"origin":"DTW","destination":"LAS"}`, "distance: missing"},
		{"no delay", `{"date":"2001/01/01 00:47","distance":1750,"origin":"DTW","destination":"LAS"}`, "delay: missing"},
		{"other date", `{"date":"2001-01-01","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`, `date: it is "2001-01-01": want YYYY/MM/DD hh:mm`},
		{"date that does not exist", `{"date":"2001/02/30 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`, "date: it is"},
		{"delay in words", `{"date":"2001/01/01 00:47","delay":"late","distance":1750,"origin":"DTW","destination":"LAS"}`, "delay: it is a string: want a whole number"},
		{"delay with a fraction", `{"date":"2001/01/01 00:47","delay":1.5,"distance":1750,"origin":"DTW","destination":"LAS"}`, "delay: it is the number 1.5: want a whole number"},
		{"distance out of range", `{"date":"2001/01/01 00:47","delay":1,"distance":3000000000,"origin":"DTW","destination":"LAS"}`, "distance: it is the number 3000000000"},
		{"number for an airport", `{"date":"2001/01/01 00:47","delay":1,"distance":1,"origin":5,"destination":"LAS"}`, "origin: it is the number 5: want a string"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			fx, err := flights.Function().Handle(t.Context(), departed("1", tt.data))
			var rejected *functions.RejectError
			if !errors.As(err, &rejected) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want a rejection that says %q", err, tt.says)
			}
			if len(fx.Writes)+len(fx.Outputs) != 0 {
				t.Errorf("it has effects all the same: %v", fx)
			}
		})
	}

	e := departed("1", `<flight/>`)
	e.SetDataContentType("application/xml")
	if _, err := flights.Function().Handle(t.Context(), e); err == nil || !strings.Contains(err.Error(), `content type is "application/xml"`) {
		t.Errorf("XML: error is %v", err)
	}
}

func TestFieldsThatAreNotKnownAreNoFault(t *testing.T) {
	t.Parallel()

	e := departed("1", `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS","carrier":{"code":"NW"}}`)
	e.SetDataContentType("application/vnd.example+json; v=2")
	if _, err := flights.Function().Handle(t.Context(), e); err != nil {
		t.Error(err)
	}
}

func TestFunctionIsDeclaredWell(t *testing.T) {
	t.Parallel()

	if err := flights.Function().Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkHandle(b *testing.B) {
	e := departed("flight-2001-000001", `{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`)
	f := flights.Function()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Handle(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}
