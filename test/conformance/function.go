package conformance

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/tandem-fn/tandem/functions"
)

//go:embed *.sql
var migrations embed.FS

// Function stores the events of the scenarios, as it receives them, in table
// seen.
func Function() functions.Function {
	return functions.Function{
		Name:       "keeper",
		Version:    "v1",
		Types:      []string{"com.example.someevent", "io.cloudevents.minimum"},
		Handle:     keep,
		Migrations: migrations,
	}
}

func keep(_ context.Context, e event.Event) (functions.Effects, error) {
	text, err := json.Marshal(attributes(e))
	if err != nil {
		return functions.Effects{}, fmt.Errorf("write attributes: %w", err)
	}
	var fx functions.Effects
	fx.Insert("seen", functions.Row{"source": e.Source(), "id": e.ID(), "attributes": string(text), "data": e.Data()})
	return fx, nil
}

// attributes returns all attributes of the event, as text.
func attributes(e event.Event) map[string]string {
	all := map[string]string{"specversion": e.SpecVersion(), "id": e.ID(), "source": e.Source(), "type": e.Type()}
	optional := map[string]string{"subject": e.Subject(), "dataschema": e.DataSchema(), "datacontenttype": e.DataContentType()}
	if !e.Time().IsZero() {
		optional["time"] = types.FormatTime(e.Time())
	}
	for name, value := range optional {
		if value != "" {
			all[name] = value
		}
	}
	for name, value := range e.Extensions() {
		all[name] = fmt.Sprint(value)
	}
	return all
}
