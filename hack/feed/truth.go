package feed

import (
	_ "embed" // the truth
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
)

//go:embed flights-by-airport.csv
var truthCSV string

// Totals is what the flights from one airport, or from all, come to.
type Totals struct {
	Flights      int64 // departures
	DelayMinutes int64 // of all of them together; early ones subtract
	Delayed      int64 // departures 60 minutes late or more
}

// Plus adds two totals.
func (t Totals) Plus(o Totals) Totals {
	return Totals{
		Flights:      t.Flights + o.Flights,
		DelayMinutes: t.DelayMinutes + o.DelayMinutes,
		Delayed:      t.Delayed + o.Delayed,
	}
}

// Truth gives, by airport, what must come out of all the flights. It was counted
// by another program.
func Truth() (map[string]Totals, error) {
	records, err := csv.NewReader(strings.NewReader(truthCSV)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the truth about flights: %w", err)
	}
	truth := make(map[string]Totals, len(records))
	for i, record := range records[1:] { // below the heading
		var numbers [3]int64
		for j := range numbers {
			if numbers[j], err = strconv.ParseInt(record[j+1], 10, 64); err != nil {
				return nil, fmt.Errorf("read the truth about flights, line %d: %w", i+2, err)
			}
		}
		truth[record[0]] = Totals{Flights: numbers[0], DelayMinutes: numbers[1], Delayed: numbers[2]}
	}
	return truth, nil
}
