// Package crash holds the constants and offers that are shared by the tests
// that pause or kill a writer and by that writer, the program in folder
// writer.
package crash

import (
	"bytes"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// CommitTimeout is the program's commit timeout. A busy machine may delay a COMMIT for
// longer than the default; then the program would not learn that it won.
const CommitTimeout = 20 * time.Second

// Tables creates the tables that the offers write to.
const Tables = `create table entries (id text primary key, pad bytea not null);
create table totals (k text primary key, n bigint not null);`

// Offer returns the offer that every cluster makes for the event with that id:
// an entry of size bytes, an increment of the total that all events share, and
// an output. With flood it includes a statement whose result is some 30 MB.
func Offer(id string, size int, flood bool) sinkwriter.Offer {
	e := event.New()
	e.SetSource("/crash")
	e.SetID(id)
	e.SetType("com.example.crash")
	e.SetTime(time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC))

	var fx functions.Effects
	fx.Insert("entries", functions.Row{"id": id, "pad": bytes.Repeat([]byte{'x'}, size)})
	fx.Add("totals", functions.Row{"k": "all"}, functions.Row{"n": 1})
	fx.Emit(functions.Output{Type: "com.example.crashed", Subject: id})
	if flood {
		fx.Exec(functions.Statement{Name: "flood", SQL: `select repeat('x', 1000000) from generate_series(1, $1::int)`}, 30)
	}
	return sinkwriter.Offer{Function: "crash", Version: "1", Event: e, Effects: fx}
}
