package delivery

import (
	"encoding/base64"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
)

// deadLetter is the event as the dead letter sink gets it: itself, with the
// attributes that Knative's delivery adds, tandemfunction for the function that
// refused it, and tandemattempts for how often it did so or broke.
func deadLetter(e event.Event, function, dest string, status int, reason []byte, attempts int) event.Event {
	letter := e.Clone()
	letter.SetExtension(eventing.ErrorDestExtension, dest)
	letter.SetExtension(eventing.ErrorCodeExtension, status)
	if len(reason) > 0 {
		letter.SetExtension(eventing.ErrorDataExtension, base64.StdEncoding.EncodeToString(reason))
	} else {
		letter.SetExtension(eventing.ErrorDataExtension, nil)
	}
	letter.SetExtension(eventing.FunctionExtension, function)
	letter.SetExtension(eventing.AttemptsExtension, attempts)
	return letter
}
