package eventing

// Extension attributes of a dead letter. The first three are those of Knative's delivery.
// Most headers of responses are in package outcome.
const (
	ErrorDestExtension = "knativeerrordest" // the URL that rejected the event
	ErrorCodeExtension = "knativeerrorcode" // the HTTP status
	ErrorDataExtension = "knativeerrordata" // the body, base64

	FunctionExtension = "tandemfunction" // the function that rejected the event or failed on it
	AttemptsExtension = "tandemattempts" // the number of attempts
)

// VersionsHeader is the response header with the functions of an image and their versions, as
// NAME=VERSION, separated by commas, each version percent-encoded. Every response of a function
// has it, whatever its status.
const VersionsHeader = "Tandem-Versions"
