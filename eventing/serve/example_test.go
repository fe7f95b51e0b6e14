package serve_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
)

func ExampleNew() {
	greet := functions.Function{
		Name: "greet", Version: "v1", Types: []string{"com.example.visitor"},
		Handle: func(_ context.Context, e event.Event) (functions.Effects, error) {
			var fx functions.Effects
			fx.Insert("visitors", functions.Row{"visitor_id": e.ID(), "name": e.Subject()})
			return fx, nil
		},
	}
	// In production the committer is a sinkwriter.Writer.
	h, err := serve.New([]functions.Function{greet}, &memory{}, serve.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", strings.NewReader("{}"))
		r.Header.Set("ce-specversion", "1.0")
		r.Header.Set("ce-type", "com.example.visitor")
		r.Header.Set("ce-source", "/door")
		r.Header.Set("ce-id", "1")
		r.Header.Set("ce-subject", "Ada")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("Tandem-Receipt"))
	}
	// Output:
	// 204 won
	// 204 lost
}
