// Package flights is a function that stores departures of flights: a row for each
// departure, totals for each airport, and an output event for each long delay.
package flights

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// The types of the input and output events.
const (
	// Departed is the type of the events that the function handles. Their data
	// are JSON: date ("2001/01/01 00:47", local time), origin and destination
	// (codes of airports), distance (miles) and delay (minutes, negative is
	// early).
	Departed = "com.example.flight.departed"

	// Delayed is the type of the events that the function emits, one for each
	// departure that is late by LongDelay or more, with the origin as their
	// subject.
	Delayed = "com.example.flight.delayed"
)

// LongDelay is the minimum delay for which an event is emitted, in minutes.
const LongDelay = 60

// dateLayout is the layout of a local time in the data.
const dateLayout = "2006/01/02 15:04"

//go:embed *.sql
var migrations embed.FS

// Function returns the function, ready to be served. Its tables are flights
// and airports.
func Function() functions.Function {
	return functions.Function{
		Name:       "flights",
		Version:    "v1",
		Types:      []string{Departed},
		Handle:     functions.JSON(handle),
		Migrations: migrations,
	}
}

// departure is the data of an event. Pointers distinguish missing fields from
// zero.
type departure struct {
	Date        *string `json:"date"`
	Origin      *string `json:"origin"`
	Destination *string `json:"destination"`
	Distance    *int32  `json:"distance"`
	Delay       *int32  `json:"delay"`
}

// delay is the data of an emitted event.
type delay struct {
	FlightID    string `json:"flight_id"`
	Date        string `json:"date"`
	Origin      string `json:"origin"`
	Destination string `json:"destination"`
	Delay       int32  `json:"delay"`
}

// Validate returns an error for the first missing field.
func (d departure) Validate() error {
	for _, field := range [...]struct {
		name string
		text *string
	}{{"date", d.Date}, {"origin", d.Origin}, {"destination", d.Destination}} {
		if field.text == nil || *field.text == "" {
			return fmt.Errorf("%s: missing", field.name)
		}
	}
	switch {
	case d.Distance == nil:
		return errors.New("distance: missing")
	case d.Delay == nil:
		return errors.New("delay: missing")
	}
	return nil
}

func handle(_ context.Context, e event.Event, d departure) (functions.Effects, error) {
	departedAt, err := time.Parse(dateLayout, *d.Date)
	if err != nil {
		return functions.Effects{}, functions.Reject(fmt.Errorf("date: it is %q: want YYYY/MM/DD hh:mm", *d.Date))
	}
	var fx functions.Effects
	fx.Insert("flights", functions.Row{
		"source":      e.Source(),
		"flight_id":   e.ID(),
		"departed_at": departedAt,
		"origin":      *d.Origin,
		"destination": *d.Destination,
		"distance":    *d.Distance,
		"delay":       *d.Delay,
	})
	fx.Add("airports", functions.Row{"airport": *d.Origin}, functions.Row{"flights": 1, "delay_minutes": *d.Delay})
	if *d.Delay >= LongDelay {
		fx.Emit(functions.Output{
			Type:    Delayed,
			Subject: *d.Origin,
			Data:    delay{FlightID: e.ID(), Date: *d.Date, Origin: *d.Origin, Destination: *d.Destination, Delay: *d.Delay},
		})
	}
	return fx, nil
}
