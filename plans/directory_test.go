package plans_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

var everyStanding = []plans.Standing{
	plans.Unknown, plans.Good, plans.Elsewhere, plans.Expired, plans.Revoked, plans.NotYet, plans.Pending, plans.Paused, plans.Closed,
}

func TestStandings(t *testing.T) {
	seen := make(map[string]plans.Standing)
	for _, s := range everyStanding {
		if other, taken := seen[s.String()]; taken || s.String() == "" {
			t.Errorf("%d and %d are both called %q", s, other, s)
		}
		seen[s.String()] = s
	}
	if got := plans.Standing(200).String(); got != "unknown" {
		t.Errorf("a standing that there is not is called %q", got)
	}
	if plans.Standing(0) != plans.Unknown {
		t.Error("the zero standing lets in")
	}
}

func TestAdmit(t *testing.T) {
	h := plans.Holder{
		Application: "app", Subscription: "sub", Credential: "key-7", Since: time.Unix(1, 0), Expires: time.Unix(2, 0),
		Limits: &plans.Limits{MaxSessions: 3},
	}
	const challenge = `APIKey realm="message-api"`
	var refused plans.Verdict
	for _, s := range append(everyStanding, plans.Standing(200)) {
		v := plans.Admit(h, s, challenge)
		switch s {
		case plans.Good:
			want := plans.Principal{Application: "app", Subscription: "sub", Credential: "key-7", Since: h.Since, Expires: h.Expires, Limits: h.Limits}
			if !v.Granted || v.Principal != want || v.Status != 0 {
				t.Errorf("good: %+v", v)
			}
			continue
		case plans.Pending, plans.Paused, plans.NotYet:
			if v.Status != http.StatusForbidden || v.Detail == "" || v.Challenge != "" {
				t.Errorf("%s: %+v", s, v)
			}
		default:
			// Nobody learns by trying which credentials exist: they differ in the log alone.
			if v.Status != http.StatusUnauthorized || v.Challenge != challenge || v.Detail == "" {
				t.Errorf("%s: %+v", s, v)
			}
			shown := v
			shown.Cause = ""
			if refused == (plans.Verdict{}) {
				refused = shown
			} else if shown != refused {
				t.Errorf("%s can be told from others: %+v, %+v", s, shown, refused)
			}
		}
		if v.Granted || v.Principal != (plans.Principal{}) || v.Cause != s.String() {
			t.Errorf("%s: %+v", s, v)
		}
	}
	if v := (plans.Verdict{}); v.Granted {
		t.Error("the zero verdict lets in")
	}
}
