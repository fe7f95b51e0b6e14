// Package exports tests that packages export few names.
package exports
