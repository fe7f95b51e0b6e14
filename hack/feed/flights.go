package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed" // the flights
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Attributes that all flights' events share.
const (
	FlightType   = "com.example.flight.departed"
	FlightSource = "/tandem/flights-2001"

	// DelayedType is the type of the events that function flights emits for a
	// delay of 60 minutes or more.
	DelayedType = "com.example.flight.delayed"

	// Flights is the number of flights.
	Flights = 20_000
)

//go:embed flights.ndjson.gz
var flightsGZ []byte

// flight holds the fields of a line that an event needs.
type flight struct {
	Date   string `json:"date"`
	Origin string `json:"origin"`
}

// FlightEvents returns the flights as CloudEvents, without the first skip. They
// are the same in every call.
func FlightEvents(skip int) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		r, err := gzip.NewReader(bytes.NewReader(flightsGZ))
		if err != nil {
			yield(event.Event{}, fmt.Errorf("unpack flights: %w", err))
			return
		}
		lines := bufio.NewReader(r)
		for number := 1; ; number++ {
			line, err := lines.ReadBytes('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			if err != nil {
				yield(event.Event{}, fmt.Errorf("unpack flights: %w", err))
				return
			}
			if number <= skip {
				continue
			}
			e, err := flightEvent(number, bytes.TrimSuffix(line, []byte("\n")))
			if !yield(e, err) {
				return
			}
		}
	}
}

func flightEvent(number int, line []byte) (event.Event, error) {
	var f flight
	if err := json.Unmarshal(line, &f); err != nil {
		return event.Event{}, fmt.Errorf("read flight %d: %w", number, err)
	}
	// The data do not contain the airport's time zone; UTC is sufficient for an
	// order.
	departed, err := time.Parse("2006/01/02 15:04", f.Date)
	if err != nil {
		return event.Event{}, fmt.Errorf("read flight %d: %w", number, err)
	}
	e := event.New()
	e.SetID(fmt.Sprintf("flight-2001-%06d", number))
	e.SetSource(FlightSource)
	e.SetType(FlightType)
	e.SetSubject(f.Origin)
	e.SetTime(departed)
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = line
	if err := e.Validate(); err != nil {
		return event.Event{}, fmt.Errorf("create event of flight %d: %w", number, err)
	}
	return e, nil
}
