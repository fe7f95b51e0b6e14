package cloudevent_test

import (
	"fmt"
	"net/http"
	"strings"
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

// BenchmarkReadBatch reads a batch of 128 events of about 300 bytes.
func BenchmarkReadBatch(b *testing.B) {
	members := make([]string, 128)
	for i := range members {
		members[i] = fmt.Sprintf(`{"specversion":"1.0","id":"event-%08d","source":"/bench/orders","type":"com.example.order.placed","datacontenttype":"application/json","data":{"order":"order-%08d","customer":"customer-01234","amount":237,"placed_at":"2026-01-01T00:20:34Z","note":"to be left with the neighbours on the second floor, who are at home after six"}}`, i, i)
	}
	body := []byte("[" + strings.Join(members, ",") + "]")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cloudevent.ReadBatch(body, function); err != nil {
			b.Fatal(err)
		}
	}
}
