package consume

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/tandem-fn/tandem/functions/flights"
)

// outputSource is the source of the peers' outputs.
const outputSource = "/peers/flights"

// Streams and their subjects, as Tandem creates them.
const (
	InputStream   = "EVENTS"
	OutputStream  = "OUTPUTS"
	inputSubjects = "events.>"
	outputSubject = "outputs." + flights.Delayed
)

// departure is a departed flight. Queues store it for an event, too.
type departure struct {
	Source      string    `json:"source" river:"unique"`
	ID          string    `json:"id" river:"unique"`
	DepartedAt  time.Time `json:"departed_at"`
	Date        string    `json:"date"`
	Origin      string    `json:"origin"`
	Destination string    `json:"destination"`
	Distance    int32     `json:"distance"`
	Delay       int32     `json:"delay"`
}

// read reads an event in binary mode. It does not check what the feed guarantees.
func read(get func(string) string, data []byte) (departure, error) {
	d := departure{Source: get("ce-source"), ID: get("ce-id")}
	if d.Source == "" || d.ID == "" {
		return departure{}, fmt.Errorf("read event: it has no source or no id: %q", data)
	}
	source, id := d.Source, d.ID
	if err := json.Unmarshal(data, &d); err != nil {
		return departure{}, fmt.Errorf("read event %s of %s: %w", id, source, err)
	}
	d.Source, d.ID = source, id
	var err error
	if d.DepartedAt, err = time.Parse("2006/01/02 15:04", d.Date); err != nil {
		return departure{}, fmt.Errorf("read event %s of %s: %w", id, source, err)
	}
	return d, nil
}

// output is the event for a long delay.
type output struct {
	ID      string          `json:"id"`
	Subject string          `json:"subject"`
	Data    json.RawMessage `json:"data"`
}

// outputSpace is the name space of the outputs' ids.
var outputSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte(outputSource))

// late reports whether the flight emits an event.
func (d *departure) late() bool { return d.Delay >= flights.LongDelay }

// output returns the event that it emits, always with the same id.
func (d *departure) output() (output, error) {
	data, err := json.Marshal(struct {
		FlightID    string `json:"flight_id"`
		Date        string `json:"date"`
		Origin      string `json:"origin"`
		Destination string `json:"destination"`
		Delay       int32  `json:"delay"`
	}{d.ID, d.Date, d.Origin, d.Destination, d.Delay})
	if err != nil {
		return output{}, fmt.Errorf("encode output of event %s: %w", d.ID, err)
	}
	id := uuid.NewSHA1(outputSpace, []byte(d.Source+"\x00"+d.ID)).String()
	return output{ID: id, Subject: d.Origin, Data: data}, nil
}

// attributes returns the headers of a CloudEvent in binary mode.
func (o output) attributes() map[string]string {
	return map[string]string{
		"ce-specversion": "1.0", "ce-id": o.ID, "ce-source": outputSource, "ce-type": flights.Delayed,
		"ce-subject": o.Subject, "content-type": "application/json",
	}
}

// message returns the output as a message. With Nats-Msg-Id the stream drops
// duplicates within two minutes.
func (o output) message() *nats.Msg {
	m := &nats.Msg{Subject: outputSubject, Header: nats.Header{nats.MsgIdHdr: {o.ID}}, Data: o.Data}
	for name, value := range o.attributes() {
		m.Header[name] = []string{value}
	}
	return m
}
