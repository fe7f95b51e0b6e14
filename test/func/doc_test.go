// Package func tests functions as func ships them: it builds programs from them
// with func's own scaffolding, starts these, sends events and stops them under
// load.
//
// It uses the func command if it exists: in bin/, where hack/install.sh func
// installs it, or in PATH in the required version. Building the command takes
// minutes, so otherwise its package pkg/scaffolding, followed by go build, replaces
// it.
package func_test
