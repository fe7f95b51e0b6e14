// Package pins pins content that must not change when code does: the migrations (a
// database records their SHA-256), the vectors of keys and identities, golden
// effects, and the names of metrics, which dashboards and alerts use. Its test
// compares them with testdata/pins.txt, by file name, wherever the file is.
package pins
