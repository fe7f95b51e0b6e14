package feed

import (
	_ "embed" // the truth
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// longDelay is the minimum delay of a delayed departure, in minutes.
const longDelay = 60

//go:embed flights-by-airport.csv
var truthCSV string

// Totals are the totals of the flights from one airport, or from all.
type Totals struct {
	Flights      int64 // departures
	DelayMinutes int64 // of all of them together; early ones subtract
	Delayed      int64 // departures 60 minutes late or more
}

// Plus returns the sum of two totals.
func (t Totals) Plus(o Totals) Totals {
	return Totals{
		Flights:      t.Flights + o.Flights,
		DelayMinutes: t.DelayMinutes + o.DelayMinutes,
		Delayed:      t.Delayed + o.Delayed,
	}
}

// TotalsOf returns the airport of a flight's event, and the event's contribution to its
// totals. A test compares the sum over all flights with [Truth].
func TotalsOf(e event.Event) (airport string, t Totals, err error) {
	var f struct {
		Origin string `json:"origin"`
		Delay  int64  `json:"delay"`
	}
	if err := json.Unmarshal(e.Data(), &f); err != nil {
		return "", Totals{}, fmt.Errorf("read flight %s: %w", e.ID(), err)
	}
	t = Totals{Flights: 1, DelayMinutes: f.Delay}
	if f.Delay >= longDelay {
		t.Delayed = 1
	}
	return f.Origin, t, nil
}

// Truth returns, by airport, the expected totals of all flights. Another program
// has counted them.
func Truth() (map[string]Totals, error) {
	records, err := csv.NewReader(strings.NewReader(truthCSV)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the expected totals of flights: %w", err)
	}
	truth := make(map[string]Totals, len(records))
	for i, record := range records[1:] { // below the heading
		var numbers [3]int64
		for j := range numbers {
			if numbers[j], err = strconv.ParseInt(record[j+1], 10, 64); err != nil {
				return nil, fmt.Errorf("read the expected totals of flights, line %d: %w", i+2, err)
			}
		}
		truth[record[0]] = Totals{Flights: numbers[0], DelayMinutes: numbers[1], Delayed: numbers[2]}
	}
	return truth, nil
}
