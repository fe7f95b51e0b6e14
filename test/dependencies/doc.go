// Package dependencies tests that every direct dependency of the root module is in
// docs/dependencies.md with its reason, and that what a function's author imports
// compiles nothing that only servers, tools and tests need.
package dependencies
