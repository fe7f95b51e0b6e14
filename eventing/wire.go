package eventing

// Extension attributes of a dead letter. The first three are those of Knative's delivery.
// Most headers of an answer are in package outcome.
const (
	ErrorDestExtension = "knativeerrordest" // the URL that refused the event
	ErrorCodeExtension = "knativeerrorcode" // the HTTP status
	ErrorDataExtension = "knativeerrordata" // the body, base64

	FunctionExtension = "tandemfunction" // the function that refused it, or broke on it
	AttemptsExtension = "tandemattempts" // how often
)

// VersionsHeader of an answer are the functions of an image with their versions, as NAME=VERSION,
// separated by commas, each version percent-encoded. Every answer of a function has them,
// whatever its status.
const VersionsHeader = "Tandem-Versions"
