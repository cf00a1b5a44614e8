package plans_test

import (
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// What was written long is read again, in whatever unit.
func TestLongPeriodsComeBack(t *testing.T) {
	for _, text := range []string{"1/522w", "1/523w", "1/600w", "1/3660w", "1/87840h", "1/90000h", "1/2000000h"} {
		var q, back plans.Quota
		if q.UnmarshalText([]byte(text)) != nil {
			continue // too long is refused
		}
		if err := back.UnmarshalText([]byte(q.String())); err != nil || back != q {
			t.Errorf("%s is written %s and read as %+v, %v", text, q, back, err)
		}
	}
}

// Also by a clock that is behind by exactly one window.
func TestWindowsBeforeTheBeginning(t *testing.T) {
	q := plans.Quota{N: 1, Per: time.Hour}
	since := at("2026-11-21T10:00:00Z")
	for back := time.Duration(0); back < 5*time.Hour; back += 30 * time.Minute {
		inWindow(t, &q, since, since.Add(-back))
	}
}
