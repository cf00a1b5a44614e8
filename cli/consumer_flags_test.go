package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/cli"
)

// A new secret stands before the one that there is, which goes by its hint, and is printed
// once.
func TestRotateSecret(t *testing.T) {
	f := newFakeAdmin(t)
	seen := map[string]bool{}
	for _, c := range []struct {
		args []string
		read func(out string) string
	}{
		{[]string{"--quiet"}, func(out string) string { return out }},
		{nil, func(out string) string { _, secret, _ := strings.Cut(out, "New secret: "); return secret }},
		{[]string{"--json", "--callback", "https://new.example.com"}, func(out string) string {
			var v struct {
				ID     string
				Secret string `json:"new_secret"`
			}
			if err := json.Unmarshal([]byte(out), &v); err != nil || v.ID != "s5" {
				t.Errorf("%v: %s", err, out)
			}
			return v.Secret
		}},
	} {
		r := call{args: append([]string{"subscriptions", "update", "s5", "--rotate-secret", "--address", f.URL}, c.args...)}.run(t)
		secret := strings.TrimSpace(c.read(r.out))
		text, isSecret := strings.CutPrefix(secret, "whsec_")
		if raw, err := base64.StdEncoding.DecodeString(text); r.failed != nil || !isSecret || err != nil || len(raw) != 32 || seen[secret] {
			t.Fatalf("%v: %q, %+v", c.args, secret, r)
		}
		seen[secret] = true
		if told := strings.Contains(r.err, "The secret is shown this once"); told != (c.args == nil) {
			t.Errorf("%v: %s", c.args, r.err)
		}
		all := f.requests()
		patch := all[len(all)-1]
		if !strings.HasPrefix(patch, `PATCH /message_api/subscriptions/s5 If-Match: "6" `) || !strings.Contains(patch, `"secrets":["`+secret+`",{"hint":"…bGQ="}]`) ||
			strings.Contains(patch, "new.example.com") != (len(c.args) == 3) {
			t.Errorf("%v: %s", c.args, patch)
		}
	}
}

func TestRotatedSecrets(t *testing.T) {
	for now, want := range map[string]int{
		`{"callback":"https://a"}`:                  1,
		`{"secrets":[]}`:                            1,
		`{"secrets":[{"hint":"…a"}]}`:               2,
		`{"secrets":[{"hint":"…a"},{"hint":"…b"}]}`: 2,
		``:              0,
		`{"secrets":1}`: 0,
	} {
		secrets, secret, err := cli.Rotated(json.RawMessage(now))
		if (err == nil) != (want > 0) || len(secrets) != want || (secret == "") != (want == 0) {
			t.Errorf("%s: %v, %v", now, secrets, err)
		}
		if raw, _ := json.Marshal(secrets); want == 2 && !strings.HasSuffix(string(raw), `,{"hint":"…a"}]`) {
			t.Errorf("%s: %s", now, raw)
		}
	}
}
