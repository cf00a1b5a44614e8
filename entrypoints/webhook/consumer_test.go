package webhook

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/envelope"
)

// roomy is an entrypoint that leaves subscriptions much to say.
const roomy = `{"timeout":"10s","concurrency":16,"dead_letter":"dead","retry":{"attempts":10,"delay":"1s","max_delay":"1m"},
	"allow_hosts":["example.com","*.example.com","login.example.org"]}`

const (
	secretA = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // "0123456789abcdef" twice
	secretB = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
	secretC = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTI="
)

func ask(t testing.TB, e *Entrypoint, old, asked string) (whole, seen string, flaws entrypoints.Flaws) {
	t.Helper()
	var before json.RawMessage
	if old != "" {
		before = json.RawMessage(old)
	}
	w, s, err := e.Consumer(before, json.RawMessage(asked))
	if err == nil {
		return string(w), string(s), nil
	}
	if !errors.As(err, &flaws) {
		t.Fatalf("%s: %v", asked, err)
	}
	return string(w), string(s), flaws
}

func TestConsumer(t *testing.T) {
	e := mustProvision(t, roomy)
	full := `{"callback":"https://example.com/hook?shop=1","secrets":["` + secretA + `","` + secretB + `"],"headers":{"X-A":["b","c"]},` +
		`"auth":{"type":"basic","username":"u","password":"geheim"},"concurrency":4,"order":"key","timeout":"1m30s",` +
		`"retry":{"strategy":"exponential","attempts":5,"delay":"1s","max_delay":"1m","jitter":0.2},"on_client_error":"skip",` +
		`"on_exhausted":"stop","cloudevents":{"source":"/shop","type":"com.example.order"},"tls":{"server_name":"hooks.example.com"}}`
	full = strings.Replace(full, "1m30s", "5s", 1)
	whole, seen, flaws := ask(t, e, "", full)
	if flaws != nil || whole != full {
		t.Errorf("got  %s, %v\nwant %s", whole, flaws, full)
	}
	var shown Consumer
	tree, err := object(json.RawMessage(seen))
	if err != nil {
		t.Fatal(err)
	}
	if hints := tree["secrets"].([]any); len(hints) != 2 || hints[0].(map[string]any)["hint"] != "…ZWY=" {
		t.Errorf("hints %v", hints)
	}
	if tree["auth"].(map[string]any)["password"] != "***" {
		t.Errorf("%v", tree["auth"])
	}
	for _, secret := range []string{secretA[6:30], secretB[6:30], "geheim"} {
		if strings.Contains(seen, secret) {
			t.Errorf("%s is shown in %s", secret, seen)
		}
	}
	delete(tree, "secrets")
	if flaws := decode(tree, &shown); flaws != nil || shown.Callback != "https://example.com/hook?shop=1" || shown.Headers.Get("X-A") != "b" {
		t.Errorf("%+v, %v", shown, flaws)
	}
}

// Who asks for nothing gets a secret of his own; who asks for none gets none.
func TestNewSecret(t *testing.T) {
	e := mustProvision(t, roomy)
	var secrets []string
	for range 2 {
		whole, seen, flaws := ask(t, e, "", `{"callback":"https://example.com/","secrets":null}`)
		var c Consumer
		if err := json.Unmarshal([]byte(whole), &c); err != nil || flaws != nil || len(c.Secrets) != 1 {
			t.Fatalf("%s, %v, %v", whole, flaws, err)
		}
		key, err := envelope.ParseSecret(c.Secrets[0])
		if err != nil || len(key) != 32 || strings.Contains(seen, c.Secrets[0]) {
			t.Errorf("%s, %v", seen, err)
		}
		secrets = append(secrets, c.Secrets[0])
	}
	if secrets[0] == secrets[1] {
		t.Error("two subscriptions got the same secret")
	}
	whole, seen, flaws := ask(t, e, "", `{"callback":"https://example.com/","secrets":[]}`)
	if want := `{"callback":"https://example.com/","secrets":[]}`; whole != want || seen != want || flaws != nil {
		t.Errorf("%s, %s, %v", whole, seen, flaws)
	}
}

// Every flaw has its path, says what to do, and quotes no secret.
func TestConsumerFlaws(t *testing.T) {
	e := mustProvision(t, roomy)
	bare := mustProvision(t, `{}`)
	const at = `"callback":"https://example.com/","secrets":[]`
	for _, c := range []struct {
		asked string
		path  string
		want  string
	}{
		{`[]`, "", "a JSON object is needed"},
		{`"x"`, "", "a JSON object is needed"},
		{`null`, "", "a JSON object is needed"},
		{``, "", "not JSON"},
		{`{"callback":`, "", "not JSON"},
		{`{"callback":"https://example.com/"} {}`, "", "something stands behind"},
		{`{"callback":"` + strings.Repeat("x", 70_000) + `"}`, "", "more than 65536"},
		{`{}`, "callback", "missing"},
		{`{"callback":7}`, "callback", "not text"},
		{`{"callback":"http://example.com/"}`, "callback", "https"},
		{`{"callback":"https://user:geheim@example.com/"}`, "callback", "auth"},
		{`{"callback":"https://127.0.0.1/"}`, "callback", "127.0.0.1"},
		{`{"callback":"https://other.org/"}`, "callback", "other.org"},
		{`{` + at + `,"callbak":1}`, "callbak", "unknown: use auth, callback"},
		{`{` + at + `,"Timeout":"1s"}`, "Timeout", "unknown"},
		{`{` + at + `,"retry":{"tries":1}}`, "retry.tries", "unknown: use attempts, delay"},
		{`{` + at + `,"retry":"none"}`, "retry", "a JSON object is needed"},
		{`{"callback":"https://example.com/","secrets":"` + secretA + `"}`, "secrets", "not a list of texts"},
		{`{"callback":"https://example.com/","secrets":["` + secretA + `","` + secretB + `","` + secretC + `"]}`, "secrets", "3 are too many"},
		{`{"callback":"https://example.com/","secrets":["geheim"]}`, "secrets[0]", "whsec_"},
		{`{"callback":"https://example.com/","secrets":["whsec_Z2VoZWlt"]}`, "secrets[0]", "24 to 64"},
		{`{"callback":"https://example.com/","secrets":["` + secretA + `",null]}`, "secrets", "null"},
		{`{"callback":"https://example.com/","secrets":[{"hint":"…ZWY="}]}`, "secrets[0]", "no secret in force has this hint"},
		{`{"callback":"https://example.com/","secrets":[{"secret":"geheim"}]}`, "secrets[0]", "or the hint of one"},
		{`{` + at + `,"headers":{"X-A":"b"}}`, "headers", "like {"},
		{`{` + at + `,"headers":{"X-A":[]}}`, "headers.X-A", "use null"},
		{`{` + at + `,"headers":{"Authorization":["geheim"]}}`, "headers.Authorization", "auth"},
		{`{` + at + `,"headers":{"host":["a"]}}`, "headers.Host", "connection"},
		{`{` + at + `,"headers":{"webhook-id":["a"]}}`, "headers.Webhook-Id", "gateway sets it"},
		{`{` + at + `,"headers":{"X A":["a"]}}`, "headers.X A", "no name"},
		{`{` + at + `,"headers":{"X-A":["a\r\nb: c"]}}`, "headers.X-A", "control characters"},
		{`{` + at + `,"headers":{"X-A":["` + strings.Repeat(`a","`, 20) + `a"]}}`, "headers", "21 values are too many"},
		{`{` + at + `,"auth":{}}`, "auth.type", "use basic, bearer or oauth2"},
		{`{` + at + `,"auth":{"type":"digest"}}`, "auth.type", "use basic, bearer or oauth2"},
		{`{` + at + `,"auth":{"type":"basic","password":"geheim"}}`, "auth.username", "missing"},
		{`{` + at + `,"auth":{"type":"basic","username":"a:b","password":"geheim"}}`, "auth.username", "colon"},
		{`{` + at + `,"auth":{"type":"bearer","token":"geheim","username":"u"}}`, "auth.username", "does not belong"},
		{`{` + at + `,"auth":{"type":"bearer","token":"geh eim"}}`, "auth.token", "blank"},
		{`{` + at + `,"auth":{"type":"bearer","token":"***"}}`, "auth.token", "there is none"},
		{`{` + at + `,"auth":{"type":"oauth2","token_url":"http://login.example.org/","client_id":"c","client_secret":"geheim"}}`, "auth.token_url", "https"},
		{`{` + at + `,"auth":{"type":"oauth2","token_url":"https://10.0.0.1/","client_id":"c","client_secret":"geheim"}}`, "auth.token_url", "10.0.0.1"},
		{`{` + at + `,"concurrency":17}`, "concurrency", "use 1 to 16"},
		{`{` + at + `,"concurrency":-1}`, "concurrency", "use 1 to 16"},
		{`{` + at + `,"concurrency":1.5}`, "concurrency", "not a whole number"},
		{`{` + at + `,"concurrency":"4"}`, "concurrency", "not a whole number"},
		{`{` + at + `,"order":"random"}`, "order", "use key, lane or none"},
		{`{` + at + `,"timeout":10}`, "timeout", "in quotes"},
		{`{` + at + `,"timeout":"0s"}`, "timeout", "longer than nothing"},
		{`{` + at + `,"timeout":"soon"}`, "timeout", "not a duration"},
		{`{` + at + `,"timeout":"11s"}`, "timeout", "use up to 10s"},
		{`{` + at + `,"retry":{"attempts":11}}`, "retry", "use up to 10"},
		{`{` + at + `,"retry":{"attempts":-1}}`, "retry", "unlimited attempts are more"},
		{`{` + at + `,"retry":{"attempts":10,"delay":"1m"}}`, "retry", "together"},
		{`{` + at + `,"retry":{"strategy":"fast"}}`, "retry.strategy", "use exponential, linear or none"},
		{`{` + at + `,"retry":{"jitter":-0.1}}`, "retry.jitter", "share"},
		{`{` + at + `,"retry":{"jitter":"0.1"}}`, "retry.jitter", "not a number"},
		{`{` + at + `,"on_client_error":"retry"}`, "on_client_error", "use dead_letter, stop or skip"},
		{`{` + at + `,"on_exhausted":"skip"}`, "on_exhausted", "use dead_letter or stop"},
		{`{` + at + `,"cloudevents":{"type":"t"}}`, "cloudevents.source", "required"},
		{`{` + at + `,"cloudevents":{"source":"/s"}}`, "cloudevents.type", "required"},
		{`{` + at + `,"cloudevents":{"source":"%zz","type":"t"}}`, "cloudevents.source", "no URI reference"},
		{`{` + at + `,"tls":{"ca":"geheim"}}`, "tls", "no certificate"},
		{`{` + at + `,"tls":{"server_name":"a b"}}`, "tls", "server_name"},
		{`{` + at + `,"tls":{"insecure_skip_verify":true}}`, "tls.insecure_skip_verify", "unknown: use ca or server_name"},
	} {
		whole, seen, flaws := ask(t, e, "", c.asked)
		i := slices.IndexFunc(flaws, func(f entrypoints.Flaw) bool { return f.Path == c.path && strings.Contains(f.Detail, c.want) })
		if i < 0 || whole != "" || seen != "" {
			t.Errorf("%.200s: %v, %s, want %q: %q", c.asked, flaws, whole, c.path, c.want)
		}
		if text := flaws.Error(); strings.Contains(text, "geh") {
			t.Errorf("%s tells a secret: %s", c.asked, text)
		}
	}
	if _, _, flaws := ask(t, bare, "", `{"callback":"https://example.com/","on_exhausted":"dead_letter"}`); len(flaws) != 1 || flaws[0].Path != "on_exhausted" {
		t.Errorf("without dead letters: %v", flaws)
	}
}

// All that is wrong is told at once.
func TestAllFlaws(t *testing.T) {
	e := mustProvision(t, roomy)
	for asked, want := range map[string][]string{
		`{"callback":7,"timeout":1,"x":1,"retry":{"y":1,"attempts":"z"}}`: {"callback", "retry.attempts", "retry.y", "timeout", "x"},
		`{"callback":"ftp://a","secrets":["a","b"],"concurrency":99,"timeout":"1h","order":"x","auth":{"type":"basic"}}`: {
			"auth.username", "callback", "concurrency", "order", "secrets[0]", "secrets[1]", "timeout"},
	} {
		_, _, flaws := ask(t, e, "", asked)
		var paths []string
		for _, f := range flaws {
			paths = append(paths, f.Path)
		}
		slices.Sort(paths)
		if !slices.Equal(paths, want) {
			t.Errorf("%s: %v, want %v", asked, flaws, want)
		}
	}
}

func TestMerge(t *testing.T) {
	e := mustProvision(t, roomy)
	const old = `{"callback":"https://example.com/a","secrets":["` + secretA + `"],"headers":{"X-A":["1"],"X-B":["2"]},` +
		`"auth":{"type":"basic","username":"u","password":"geheim"},"timeout":"5s","retry":{"attempts":3,"delay":"2s"}}`
	const oauth = `{"callback":"https://example.com/a","secrets":[],` +
		`"auth":{"type":"oauth2","token_url":"https://login.example.org/t","client_id":"c","client_secret":"geheim"}}`
	for name, c := range map[string]struct{ old, asked, want string }{
		"nothing":                     {old, `{}`, old},
		"a member":                    {old, `{"callback":"https://example.com/b"}`, strings.Replace(old, "com/a", "com/b", 1)},
		"taken away":                  {old, `{"headers":{"x-a":null},"auth":null,"timeout":null,"retry":{"delay":null}}`, `{"callback":"https://example.com/a","secrets":["` + secretA + `"],"headers":{"X-B":["2"]},"retry":{"attempts":3}}`},
		"one header":                  {old, `{"headers":{"x-a":["3"]}}`, strings.Replace(old, `"1"`, `"3"`, 1)},
		"another user, same password": {old, `{"auth":{"username":"v","password":"***"}}`, strings.Replace(old, `"u"`, `"v"`, 1)},
		"another password":            {old, `{"auth":{"password":"neu"}}`, strings.Replace(old, `geheim`, `neu`, 1)},
		"another type":                {old, `{"auth":{"type":"bearer","token":"t"}}`, strings.Replace(old, `{"type":"basic","username":"u","password":"geheim"}`, `{"type":"bearer","token":"t"}`, 1)},
		"what was shown comes back": {old, `{"callback":"https://example.com/a","secrets":[{"hint":"…ZWY="}],"headers":{"X-A":["1"],"X-B":["2"]},` +
			`"auth":{"type":"basic","username":"u","password":"***"},"timeout":"5s","retry":{"attempts":3,"delay":"2s"}}`, old},
		"rotation":         {old, `{"secrets":["` + secretB + `",{"hint":"…ZWY="}]}`, strings.Replace(old, `"`+secretA, `"`+secretB+`","`+secretA, 1)},
		"rotation in full": {old, `{"secrets":["` + secretB + `","` + secretA + `"]}`, strings.Replace(old, `"`+secretA, `"`+secretB+`","`+secretA, 1)},
		"rotation ends": {strings.Replace(old, `"`+secretA, `"`+secretB+`","`+secretA, 1), `{"secrets":[{"hint":"` + hintOf(secretB) + `"}]}`,
			strings.Replace(old, secretA, secretB, 1)},
		"unsigned":              {old, `{"secrets":[]}`, strings.Replace(old, `"`+secretA+`"`, "", 1)},
		"another host, given":   {old, `{"callback":"https://b.example.com/","auth":{"password":"geheim"}}`, strings.Replace(old, "example.com/a", "b.example.com/", 1)},
		"another path of oauth": {oauth, `{"auth":{"token_url":"https://login.example.org/v2"}}`, strings.Replace(oauth, "org/t", "org/v2", 1)},
	} {
		whole, seen, flaws := ask(t, e, c.old, c.asked)
		if flaws != nil || whole != c.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, flaws, whole, c.want)
		}
		if strings.Contains(seen, "geheim") || strings.Contains(seen, "whsec_") {
			t.Errorf("%s: secrets in %s", name, seen)
		}
	}
	for name, c := range map[string]struct{ old, asked, path, want string }{
		"secrets taken away":   {old, `{"secrets":null}`, "secrets", "[] for unsigned"},
		"an unknown hint":      {old, `{"secrets":[{"hint":"…AAAA"}]}`, "secrets[0]", "give it in full"},
		"hint of a password":   {oauth, `{"auth":{"type":"basic","username":"u","password":"***"}}`, "auth.password", "there is none"},
		"another host":         {old, `{"callback":"https://b.example.com/"}`, "auth.password", "again in full"},
		"another host, hinted": {old, `{"callback":"https://b.example.com/","auth":{"password":"***"}}`, "auth.password", "again in full"},
		"another port":         {old, `{"callback":"https://example.com:8443/"}`, "auth.password", "again in full"},
		"another token host":   {oauth, `{"auth":{"token_url":"https://b.example.com/"}}`, "auth.client_secret", "again in full"},
		"tokens for another":   {oauth, `{"callback":"https://b.example.com/"}`, "auth.client_secret", "again in full"},
	} {
		_, _, flaws := ask(t, e, c.old, c.asked)
		if len(flaws) != 1 || flaws[0].Path != c.path || !strings.Contains(flaws[0].Detail, c.want) {
			t.Errorf("%s: %v, want %s: %s", name, flaws, c.path, c.want)
		}
	}
	if _, _, err := e.Consumer(json.RawMessage(`[`), json.RawMessage(`{}`)); err == nil {
		t.Error("what is in force can't be read, and nobody says so")
	}
}

func TestConsumerCaddyfile(t *testing.T) {
	full := `audit {
	callback https://example.com/hook
	secret {env.NEW} {env.OLD}
	header X-A b
	header X-A c
	auth oauth2 {
		token_url https://login.example.org/token
		client_id id
		client_secret {env.CLIENT}
		scopes a b
		in_body
	}
	concurrency 4
	order key
	timeout 90s
	retry exponential {
		attempts 5
		delay 1s
		max_delay 1m
		jitter 0.2
	}
	on_client_error skip
	on_exhausted stop
	cloudevents {
		source /shop
		type t
	}
	tls {
		ca /etc/ca.pem
		server_name hooks
	}
}`
	const minimal = "x {\n\tcallback https://a\n\t%\n}"
	for text, want := range map[string]string{
		full: `{"callback":"https://example.com/hook","secrets":["{env.NEW}","{env.OLD}"],"headers":{"X-A":["b","c"]},` +
			`"auth":{"type":"oauth2","token_url":"https://login.example.org/token","client_id":"id","client_secret":"{env.CLIENT}","scopes":["a","b"],"client_auth":"body"},` +
			`"concurrency":4,"order":"key","timeout":"1m30s","retry":{"strategy":"exponential","attempts":5,"delay":"1s","max_delay":"1m","jitter":0.2},` +
			`"on_client_error":"skip","on_exhausted":"stop","cloudevents":{"source":"/shop","type":"t"},"tls":{"ca":"{file./etc/ca.pem}","server_name":"hooks"}}`,
		"callback https://a":    `{"callback":"https://a","secrets":[]}`,
		"auth basic u p":        `{"callback":"https://a","secrets":[],"auth":{"type":"basic","username":"u","password":"p"}}`,
		"auth bearer {env.T}":   `{"callback":"https://a","secrets":[],"auth":{"type":"bearer","token":"{env.T}"}}`,
		"tls {\nca {env.CA}\n}": `{"callback":"https://a","secrets":[],"tls":{"ca":"{env.CA}"}}`,
	} {
		if !strings.Contains(text, "audit") && !strings.HasPrefix(text, "callback") {
			text = strings.Replace(minimal, "%", text, 1)
		} else if strings.HasPrefix(text, "callback") {
			text = "x {\n" + text + "\n}"
		}
		c := new(Consumer)
		if err := c.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(c); err != nil || string(got) != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", text, got, err, want)
		}
	}
	for line, want := range map[string]string{
		"url https://a":             `unknown option "url" in subscription: use auth, callback`,
		"callback https://b":        "stands twice",
		"secret":                    "one secret, or two",
		"secret a b c":              "one secret, or two",
		"header X":                  "a name and a value",
		"auth":                      "needs its type: use basic, bearer or oauth2",
		"auth digest a":             `auth "digest": use basic, bearer or oauth2`,
		"auth basic a":              "a user and a password",
		"auth bearer":               "needs a token",
		"auth bearer t {\n\tx y\n}": "unknown option",
		"auth oauth2 x":             "takes a block",
		"auth oauth2 {\n\tin_header\n\tin_body\n}": "use one of in_header and in_body",
		"auth oauth2 {\n\tin_body yes\n}":          "one too many",
		"auth oauth2 {\n\ttoken x\n}":              "use client_id, client_secret, in_body, in_header, scopes, token_url",
		"timeout 0":                                "longer than 0",
		"retry never":                              "use exponential, linear or none",
		"tls {\n\tinsecure_skip_verify\n}":         "use ca, server_name",
		"order x":                                  "use key, lane, none",
		"cloudevents {\n\tsubject x\n}":            "use source, type",
		"concurrency none":                         "whole number",
	} {
		err := new(Consumer).UnmarshalCaddyfile(caddyfile.NewTestDispenser(strings.Replace(minimal, "%", line, 1)))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	if err := new(Consumer).UnmarshalCaddyfile(caddyfile.NewTestDispenser("x {\n}")); err == nil || !strings.Contains(err.Error(), "needs a callback") {
		t.Errorf("no callback: %v", err)
	}
}

func TestDurationText(t *testing.T) {
	for text, want := range map[string]string{
		"10s": "10s", "60s": "1m", "90s": "1m30s", "3600s": "1h", "1h30m": "1h30m", "1d": "24h", "10m": "10m", "100ms": "100ms", "3601s": "1h0m1s", "20m": "20m", "50m": "50m",
	} {
		var d Duration
		if err := json.Unmarshal([]byte(`"`+text+`"`), &d); err != nil || d.String() != want {
			t.Errorf("%s: %s, %v, want %s", text, d, err, want)
		}
		raw, err := json.Marshal(d)
		var back Duration
		if err != nil || json.Unmarshal(raw, &back) != nil || back != d {
			t.Errorf("%s: %s", text, raw)
		}
	}
}
