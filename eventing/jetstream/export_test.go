package jetstream

// Older is older. Tests with messages of that age would take too long.
var Older = older

// SetRereadLimit bounds the messages that are read again by their sequences.
func (s *Stream) SetRereadLimit(messages uint64) { s.rereadLimit = messages }
