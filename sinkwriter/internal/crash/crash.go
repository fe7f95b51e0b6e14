// Package crash holds what a writer that is stopped or killed by tests has in
// common with the test that does so: the program is in the folder writer.
package crash

import (
	"bytes"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// CommitTimeout is that of the program: a busy machine may hold up a COMMIT for longer than
// the default, and then the program does not learn that it has won.
const CommitTimeout = 20 * time.Second

// Tables are those that the offers write to.
const Tables = `create table entries (id text primary key, pad bytea not null);
create table totals (k text primary key, n bigint not null);`

// Offer is what every cluster computes from the event with that id: an entry of
// size bytes, one more in the total that all events share, and an output. With
// flood, a statement whose result is some 30 MB.
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
