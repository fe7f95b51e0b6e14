package jetstream

// Older is older, for tests: a message of that age would take them too long.
var Older = older

// SetRereadLimit has no more messages read again by their sequences.
func (s *Stream) SetRereadLimit(messages uint64) { s.rereadLimit = messages }
