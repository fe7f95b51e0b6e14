package sinkwriter

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

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
