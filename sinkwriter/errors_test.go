package sinkwriter

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// The text of an error is in the server's language, and changes with its version.
func TestNothingDependsOnTheTextOfAnError(t *testing.T) {
	t.Parallel()

	for _, dir := range []string{".", "ledger", "lease", "deadletter", "rejected", "schema", "snapshot"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(names), err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Message", "Detail", "Hint", "Where", "Severity"}, s.Sel.Name) {
					t.Errorf("%s: %s of an error", files.Position(s.Pos()), s.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestAnOutageIsNoEventsFault(t *testing.T) {
	t.Parallel()

	for _, code := range []string{
		"08000", "08006", "25006", "25P03", "26000", "28P01", "3D000", "40001", "40P01", "53100", "53200", "53300", "53400", "55006", "55P03",
		"57000", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030", "58P01", "72000", "F0001", "HV00N", "XX001", "XX002",
	} {
		if got := faultOf(&pgconn.PgError{Code: code}); got != FaultTransient {
			t.Errorf("%s: fault %s, want %s", code, got, FaultTransient)
		}
		if got := faultOf(&pgconn.PgError{Code: code, Routine: "exec_stmt_raise"}); got != FaultFunction {
			t.Errorf("%s, raised by a function of the database: fault %s, want %s", code, got, FaultFunction)
		}
	}
	tests := []struct {
		err  pgconn.PgError
		want Fault
	}{
		{pgconn.PgError{Code: "54000", Routine: "GetNewTransactionId"}, FaultTransient},
		{pgconn.PgError{Code: "54000", Routine: "GetNewMultiXactId"}, FaultTransient},
		{pgconn.PgError{Code: "54000", Routine: "_bt_check_third_page"}, FaultEvent},
		{pgconn.PgError{Code: "54000", Routine: "mdextend"}, FaultTransient},
		{pgconn.PgError{Code: "54000", Routine: "asyncQueueAddEntries"}, FaultTransient},
		{pgconn.PgError{Code: "42601", Routine: "jsonpath_yyerror"}, FaultEvent},
		{pgconn.PgError{Code: "42601", Routine: "scanner_yyerror", Position: 7}, FaultDeployment},
		{pgconn.PgError{Code: "42601", Routine: "scanner_yyerror", InternalPosition: 7}, FaultDeployment},
		{pgconn.PgError{Code: "22P02", Routine: "enum_in"}, FaultDeployment},
		{pgconn.PgError{Code: "22P02", Routine: "range_parse"}, FaultEvent},
		{pgconn.PgError{Code: "23514", ConstraintName: "n_check"}, FaultEvent},
		{pgconn.PgError{Code: "23514"}, FaultDeployment},
		{pgconn.PgError{Code: "23514", Routine: "exec_stmt_raise"}, FaultEvent},
		{pgconn.PgError{Code: "23503", Routine: "exec_stmt_raise"}, FaultOrder},
		{pgconn.PgError{Code: "42P01", Routine: "exec_stmt_raise"}, FaultFunction},
		{pgconn.PgError{Code: "42501", Routine: "exec_stmt_raise"}, FaultFunction},
		{pgconn.PgError{Code: "2200H", Routine: "exec_stmt_raise"}, FaultEvent},
		{pgconn.PgError{Code: "42501", Routine: "aclcheck_error"}, FaultDeployment},
		{pgconn.PgError{Code: "42501", Routine: "ExecWithCheckOptions"}, FaultEvent},
		{pgconn.PgError{Code: "XX000"}, FaultFunction},
		{pgconn.PgError{Code: "38000"}, FaultFunction},
		{pgconn.PgError{Code: "39P01"}, FaultFunction},
		{pgconn.PgError{Code: "55000"}, FaultFunction},
		{pgconn.PgError{Code: "57014"}, FaultFunction},
		{pgconn.PgError{Code: "08P01"}, FaultFunction},
		{pgconn.PgError{Code: "2F005"}, FaultFunction},
		{pgconn.PgError{Code: "P0001"}, FaultEvent},
		{pgconn.PgError{Code: "MY001"}, FaultEvent},
		{pgconn.PgError{Code: "99999"}, FaultEvent},
	}
	for _, tt := range tests {
		if got := faultOf(&tt.err); got != tt.want {
			t.Errorf("%s of %s: fault %s, want %s", tt.err.Code, tt.err.Routine, got, tt.want)
		}
	}
}
