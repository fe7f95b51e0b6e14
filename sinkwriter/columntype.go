package sinkwriter

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// columnType is a type of the database, and how values of it are encoded.
type columnType struct {
	oid      uint32 // of the base type of a domain
	name     string // for error messages, such as numeric(10,2)
	cast     string // for SQL; independent of the search_path
	kind     typeKind
	modifier int32 // the typmod in the catalog, such as the length of varchar(10); -1 if there is none

	elem      *columnType // of an array, and of the bounds of a range or multirange
	delimiter byte        // between elements of an array of this type
	fields    []field     // of a composite type
}

// field is an attribute of a composite type.
type field struct {
	name string
	typ  *columnType
}

// typeKind is the kind of value that a type holds.
type typeKind uint8

const (
	kindOther typeKind = iota // sent as text, which only the server interprets
	kindBool
	kindInt2
	kindInt4
	kindInt8
	kindFloat4
	kindFloat8
	kindNumeric
	kindText
	kindVarchar
	kindBPChar
	kindName
	kindChar // "char", a byte
	kindBytea
	kindUUID
	kindDate
	kindTimestamp
	kindTimestamptz
	kindTime
	kindTimetz
	kindInterval
	kindJSON
	kindJSONB
	kindBit
	kindVarbit
	kindMoney
	kindHstore
	kindGeometry
	kindMAC
	kindArray
	kindRange
	kindMultirange
	kindComposite
	kindEnum
)

// builtinKinds maps the names of PostgreSQL's own types to their kinds.
var builtinKinds = map[string]typeKind{
	"bool": kindBool, "int2": kindInt2, "int4": kindInt4, "int8": kindInt8, "float4": kindFloat4, "float8": kindFloat8, "numeric": kindNumeric,
	"text": kindText, "varchar": kindVarchar, "bpchar": kindBPChar, "name": kindName, "char": kindChar, "bytea": kindBytea, "uuid": kindUUID,
	"date": kindDate, "timestamp": kindTimestamp, "timestamptz": kindTimestamptz, "time": kindTime, "timetz": kindTimetz, "interval": kindInterval,
	"json": kindJSON, "jsonb": kindJSONB, "bit": kindBit, "varbit": kindVarbit, "money": kindMoney, "macaddr": kindMAC, "macaddr8": kindMAC,
}

// extensionKinds maps the names of types of extensions, in any schema, to their
// kinds.
var extensionKinds = map[string]typeKind{"citext": kindText, "hstore": kindHstore, "geometry": kindGeometry, "geography": kindGeometry}

// typesSQL reads types and, recursively, the types that they consist of.
const typesSQL = `
with recursive needed (oid) as (
  select unnest($1::pg_catalog.oid[])
  union
  select d.oid from needed n
  join pg_catalog.pg_type t on t.oid = n.oid
  cross join lateral (
    select t.typbasetype as oid
    union all select e.oid from pg_catalog.pg_type e where e.oid = t.typelem and e.typarray = t.oid
    union all select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
    union all select a.atttypid from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) d where d.oid <> 0
)
select t.oid, pg_catalog.format_type(t.oid, null), pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname), t.typname,
  n.nspname = 'pg_catalog', t.typtype::text, t.typbasetype, t.typtypmod, t.typdelim::text,
  coalesce((select e.oid from pg_catalog.pg_type e where e.oid = t.typelem and e.typarray = t.oid),
    (select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)), 0),
  array(select a.attname::text from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum),
  array(select a.atttypid from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum),
  array(select a.atttypmod from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum)
from needed
join pg_catalog.pg_type t using (oid)
join pg_catalog.pg_namespace n on n.oid = t.typnamespace`

// typeRow is a type as the catalogs describe it.
type typeRow struct {
	oid                  uint32
	name, cast, typeName string
	builtin              bool
	typtype              string
	base                 uint32
	modifier             int32
	delimiter            string
	elem                 uint32
	fieldNames           []string
	fieldTypes           []uint32
	fieldModifiers       []int32
}

// typeRows holds the types that were read, by OID.
type typeRows map[uint32]*typeRow

// loadTypes reads types and the types that they consist of.
func loadTypes(ctx context.Context, conn *pgx.Conn, oids []uint32) (typeRows, error) {
	if len(oids) == 0 {
		return typeRows{}, nil
	}
	slices.Sort(oids)
	rows, err := conn.Query(ctx, typesSQL, pgx.QueryExecModeExec, slices.Compact(oids))
	if err != nil {
		return nil, err
	}
	types := typeRows{}
	var r typeRow
	_, err = pgx.ForEachRow(rows, []any{
		&r.oid, &r.name, &r.cast, &r.typeName, &r.builtin, &r.typtype, &r.base, &r.modifier, &r.delimiter, &r.elem, &r.fieldNames, &r.fieldTypes, &r.fieldModifiers,
	}, func() error {
		one := r
		one.fieldNames, one.fieldTypes, one.fieldModifiers = slices.Clone(r.fieldNames), slices.Clone(r.fieldTypes), slices.Clone(r.fieldModifiers)
		types[r.oid] = &one
		return nil
	})
	return types, err
}

// typeOf returns the type with that OID and the modifier of a column.
func (types typeRows) typeOf(oid uint32, modifier int32) *columnType {
	r, ok := types[oid]
	if !ok {
		return &columnType{oid: pgtype.TextOID, name: "its type", cast: `pg_catalog."text"`, modifier: -1, delimiter: ','}
	}
	if r.typtype == "d" {
		if modifier == -1 {
			modifier = r.modifier
		}
		// The server checks the domain when it stores the value. For an amount that is not
		// the value that is sent, so the cast is to the base type.
		t := types.typeOf(r.base, modifier)
		t.name = r.name + ", which is " + t.name
		return t
	}
	t := &columnType{oid: r.oid, name: r.name, cast: r.cast, modifier: modifier, delimiter: ','}
	if r.delimiter != "" {
		t.delimiter = r.delimiter[0]
	}
	switch {
	case r.typtype == "r", r.typtype == "m":
		t.kind, t.elem = kindRange, types.typeOf(r.elem, -1)
		if r.typtype == "m" {
			t.kind = kindMultirange
		}
	case r.typtype == "c":
		t.kind = kindComposite
		for i, name := range r.fieldNames {
			t.fields = append(t.fields, field{name, types.typeOf(r.fieldTypes[i], r.fieldModifiers[i])})
		}
	case r.typtype == "e":
		t.kind = kindEnum
	case r.elem != 0:
		t.kind, t.elem = kindArray, types.typeOf(r.elem, modifier)
	case r.builtin:
		t.kind = builtinKinds[r.typeName]
	case r.typtype == "b":
		t.kind = extensionKinds[r.typeName]
	}
	return t
}
