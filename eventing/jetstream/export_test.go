package jetstream

// Older is older, for tests: a message of that age would take them too long.
var Older = older
