// Package webhook answers the handshake of CloudEvents' web hooks.
package webhook

import "net/http"

// AnswerHandshake answers the validation request of CloudEvents' web hooks (HTTP 1.1
// Web Hooks for Event Delivery 1.0.2, section 4): every origin may send, at any rate.
func AnswerHandshake(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Allow", "OPTIONS, POST")
	if r.Header.Get("WebHook-Request-Origin") != "" {
		header.Set("WebHook-Allowed-Origin", "*")
		header.Set("WebHook-Allowed-Rate", "*")
	}
	w.WriteHeader(http.StatusOK)
}
