// Package program runs a function's own program for a tool.
//
// A program of functions serves events. With the variable TANDEM_COMMAND it executes a
// command instead, and ends:
//
//   - describe writes its functions, as a [Description] in JSON.
//   - migrate creates and changes the tables of Tandem and of its functions in the
//     database of DATABASE_URL.
//   - compute reads events from standard input and writes the effects that its
//     functions compute to standard output, one JSON value for each. It writes to
//     nothing else.
//
// So a tool works for the functions of every module, and links none of them. [Build]
// builds the program of a module's folder, [Image] runs that of an image.
//
// # Design
//
// The command is a variable, not an argument, because the main package of an image
// belongs to func's scaffolding, which reads no arguments, and because the images of
// func's host builder name the program as their command, which arguments would replace.
package program
