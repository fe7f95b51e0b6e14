// Command echo is a test workload for a cluster: it answers every GET, and
// prints and accepts every other request, such as a CloudEvent.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	name, _ := os.Hostname()
	start := time.Now()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprintf(w, "hello from %s, up %s\n", name, time.Since(start).Round(time.Millisecond))
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var attrs []string
		for k, v := range r.Header {
			if strings.HasPrefix(k, "Ce-") || k == "Content-Type" {
				attrs = append(attrs, k+"="+strings.Join(v, ","))
			}
		}
		sort.Strings(attrs)
		_, _ = fmt.Fprintf(os.Stdout, "%s %s %v %s\n", r.Method, r.URL.Path, attrs, body)
		w.WriteHeader(http.StatusAccepted)
	})
	log.Fatal(http.ListenAndServe(":"+port, nil))
}
