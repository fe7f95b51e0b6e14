package serve

// For tests: the readers of one event.
var (
	ReadBinary     = readBinary
	ReadStructured = readStructured
	HeaderValue    = headerValue
)
