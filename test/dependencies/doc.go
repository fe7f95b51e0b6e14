// Package dependencies tests that docs/dependencies.md lists every direct
// dependency of the root module with its reason, and that the packages that a
// function's author imports do not compile dependencies that only servers, tools
// and tests need.
package dependencies
