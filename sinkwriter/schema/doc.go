// Package schema migrates the schema tandem and the tables of functions ([Migrate]),
// checks whether a database is ready for a program ([Check]), and grants the writing
// role exactly the privileges that it needs ([Grant], [Revoke]).
package schema
