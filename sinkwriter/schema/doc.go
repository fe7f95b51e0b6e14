// Package schema migrates the schema tandem and the tables of functions ([Migrate]),
// reports whether a database is ready for a program ([Check]), and grants the writing
// role what it needs and no more ([Grant], [Revoke]).
package schema
