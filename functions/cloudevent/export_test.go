package cloudevent

// For tests: the encoding of attributes in headers.
var (
	Escape   = escape
	Unescape = unescape
)
