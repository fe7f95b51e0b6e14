package process_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
)

// greet stores a visitor.
func greet(_ context.Context, e event.Event, visitor struct {
	Name string `json:"name"`
},
) (functions.Effects, error) {
	var fx functions.Effects
	fx.Insert("visitors", functions.Row{"id": functions.ID(e, "visitor"), "name": visitor.Name})
	return fx, nil
}

// The package beside func.yaml has a function New, which func's scaffolding calls.
func ExampleNew() {
	New := func() *process.Runtime {
		return process.New(functions.Function{
			Name:    "greet",
			Version: "v1",
			Types:   []string{"com.example.visitor"},
			Handle:  functions.JSON(greet),
		})
	}

	ready, err := New().Ready(context.Background())
	fmt.Println(ready, err)
	// Output: false <nil>
}

// A Runtime in your own server instead of func's.
func ExampleRuntime_Start() {
	ctx := context.Background()
	runtime := process.New(functions.Function{
		Name: "greet", Version: "v1", Types: []string{"com.example.visitor"}, Handle: functions.JSON(greet),
	})
	err := runtime.Start(ctx, map[string]string{
		"TANDEM_CLUSTER": "east",
		"DATABASE_URL":   "postgres://tandem@localhost:5432/orders",
	})
	if err != nil {
		log.Fatal(err) // a variable or a function is invalid
	}
	server := &http.Server{
		Addr:              "127.0.0.1:8080",
		Handler:           http.HandlerFunc(runtime.Handle),
		ReadHeaderTimeout: 5 * time.Second,
	}
	if err := server.ListenAndServe(); err != nil {
		log.Print(err)
	}
	if err := runtime.Stop(ctx); err != nil {
		log.Fatal(err)
	}
}
