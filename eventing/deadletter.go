package eventing

import (
	"encoding/base64"

	"github.com/cloudevents/sdk-go/v2/event"
)

// deadLetter is the event as the dead letter sink gets it: itself, with the
// attributes that Knative's delivery adds, tandemfunction for the function that
// refused it, and tandemattempts for how often it did so or broke.
func deadLetter(e event.Event, function, dest string, a answer, attempts int) event.Event {
	letter := e.Clone()
	letter.SetExtension(ErrorDestExtension, dest)
	letter.SetExtension(ErrorCodeExtension, a.status)
	if len(a.body) > 0 {
		letter.SetExtension(ErrorDataExtension, base64.StdEncoding.EncodeToString(a.body))
	} else {
		letter.SetExtension(ErrorDataExtension, nil)
	}
	letter.SetExtension(FunctionExtension, function)
	letter.SetExtension(AttemptsExtension, attempts)
	return letter
}
