package cloudevent_test

import (
	"net/http"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func BenchmarkReadBinary(b *testing.B) {
	h := header("ce-specversion: 1.0", "ce-id: flight-2001-000001", "ce-source: /tandem/flights-2001", "ce-type: com.example.flight.departed",
		"ce-subject: DTW", "ce-time: 2001-01-01T00:47:00Z", "content-type: application/json", "user-agent: x", "accept-encoding: gzip", "content-length: 90")
	body := []byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cloudevent.ReadBinary(h, body, function); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := sdk(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadStructured(b *testing.B) {
	body := []byte(`{"specversion":"1.0","id":"flight-2001-000001","source":"/tandem/flights-2001","type":"com.example.flight.departed","subject":"DTW","time":"2001-01-01T00:47:00Z","datacontenttype":"application/json","data":{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cloudevent.ReadJSON(body, function); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		h := http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := sdk(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
