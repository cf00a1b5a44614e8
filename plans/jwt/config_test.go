package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"jwt":      `{}`,
		"jwt {\n}": `{}`,
		block("issuer any", "jwks_url https://i.example/keys"):                                                                                             `{"jwks_url":"https://i.example/keys","issuer":"any"}`,
		block("discovery https://i.example", "audience a b", "audience c", "allow_http", "ca_file /ca.pem", "max_stale 2d"):                                `{"discovery":"https://i.example","allow_http":true,"ca_file":"/ca.pem","max_stale":172800000000000,"audience":["a","b","c"]}`,
		block("key {file./k.pem}", `typ "" at+jwt`, "algorithms RS256 PS256", "leeway off", "max_lifetime 1h", "client_id_claim sub", "query_parameter t"): `{"key":"{file./k.pem}","algorithms":["RS256","PS256"],"typ":["","at+jwt"],"leeway":0,"max_lifetime":3600000000000,"client_id_claim":"sub","query_parameter":"t"}`,
		block("secret {env.S}", "max_stale off", "leeway 1m", "allow_http off"):                                                                            `{"secret":"{env.S}","max_stale":0,"leeway":60000000000}`,
	} {
		j := new(JWT)
		if err := j.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := json.Marshal(j)
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s, %v, want\n%s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"jwt shop":                           `jwt takes no value here: "shop" is one too many, at Testfile:1`,
		block("jwks https://x"):              `unknown option "jwks" in plan jwt: use algorithms, allow_http, audience, ca_file, client_id_claim, discovery, issuer, jwks_url, key, leeway, max_lifetime, max_stale, query_parameter, secret, typ, at Testfile:2`,
		block("issuer a", "issuer b"):        "stands twice, first on line 2, at Testfile:3",
		block("issuer"):                      `option "issuer" needs a value, at Testfile:2`,
		block("audience"):                    `option "audience" needs at least one value`,
		block("leeway 30"):                   `leeway "30" is not a duration`,
		block("max_lifetime off"):            `max_lifetime "off" is not a duration`,
		block("allow_http maybe"):            `allow_http "maybe": use on or off`,
		block("key a", "", "secret b c"):     `"c" is one too many, at Testfile:4`,
		block("algorithms"):                  `option "algorithms" needs at least one value`,
		block("client_id_claim azp sub"):     `"sub" is one too many`,
		block("query_parameter", "typ \"\""): `option "query_parameter" needs a value`,
	} {
		err := new(JWT).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func block(lines ...string) string { return "jwt {\n\t" + strings.Join(lines, "\n\t") + "\n}" }

func duration(d time.Duration) *caddy.Duration {
	v := caddy.Duration(d)
	return &v
}

// Whatever can't work, or would be a hole, is an error that says what to do.
func TestImpossibleOptions(t *testing.T) {
	public := publicPEM(&rsaKey().PublicKey)
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p256()))}))
	weak := publicPEM(&must(rsa.GenerateKey(rand.Reader, 1024)).PublicKey)
	p224 := publicPEM(&must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).PublicKey)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const url = "https://i.example/keys"
	for want, j := range map[string]*JWT{
		"0 of discovery, jwks_url, key and secret": {},
		"2 of discovery, jwks_url, key and secret": {Key: public, Secret: aSecret},
		"name what tokens have as iss":             {JWKSURL: url},
		"discovery names the issuer already":       {Discovery: "https://i.example", Issuer: "any"},
		"is not encrypted":                         {JWKSURL: "http://127.0.0.1/keys", Issuer: "any"},
		`discovery: "http://i.example" is not enc`: {Discovery: "http://i.example"},
		`"ftp://x/" is no URL for keys`:            {JWKSURL: "ftp://x/", Issuer: "any", AllowHTTP: true},
		`"/keys" is no URL for keys`:               {JWKSURL: "/keys", Issuer: "any"},
		`"https://u:xxxxx@x/" is no URL for keys`:  {JWKSURL: "https://u:hunter2@x/", Issuer: "any"},
		`"https://x/#y" is no URL for keys`:        {JWKSURL: "https://x/#y", Issuer: "any"},
		"that is no URL":                           {JWKSURL: "https://hunter2:pass word@x\x7f/", Issuer: "any"},
		"unrecognized placeholder":                 {JWKSURL: "{nothing.such}", Issuer: "any"},
		"jwks_url: evaluated placeholder":          {JWKSURL: "{env.SURELY_NOT_SET}", Issuer: "any"},
		"ca_file: open":                            {JWKSURL: url, Issuer: "any", CAFile: "/does/not/exist"},
		"holds no certificate":                     {JWKSURL: url, Issuer: "any", CAFile: empty},
		"leave them out":                           {Key: public, AllowHTTP: true},
		"max_stale 721h0m0s: use 0 to 720h0m0s":    {JWKSURL: url, Issuer: "any", MaxStale: duration(721 * time.Hour)},
		"leeway 5m1s: use 0 to 5m0s":               {Key: public, Leeway: duration(5*time.Minute + time.Second)},
		"leeway -1s":                               {Key: public, Leeway: duration(-time.Second)},
		"max_lifetime -1ns":                        {Key: public, MaxLifetime: -1},
		"no PEM text":                              {Key: "/etc/issuer.pem"},
		"more than one key":                        {Key: public + public},
		`that is a "PRIVATE KEY": give the public`: {Key: private},
		"1024 bits":                                {Key: weak},
		"P-256, P-384 or P-521":                    {Key: p224},
		"key: asn1":                                {Key: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))},
		"belongs under key: a public key is no":    {Secret: public},
		"has 31 bytes":                             {Secret: strings.Repeat("s", 31)},
		"secret: evaluated placeholder":            {Secret: "{env.SURELY_NOT_SET}"},
		`"none": a token without a signature`:      {Key: public, Algorithms: []string{"RS256", "none"}},
		`"nOnE": a token without a signature`:      {JWKSURL: url, Issuer: "any", Algorithms: []string{"nOnE"}},
		`"HS256": it is for secrets`:               {Key: public, Algorithms: []string{"HS256"}},
		`"HS512": it is for secrets`:               {JWKSURL: url, Issuer: "any", Algorithms: []string{"HS512"}},
		`"ES256": it does not suit the key`:        {Key: public, Algorithms: []string{"ES256"}},
		`"RS256": it does not suit the key`:        {Secret: aSecret, Algorithms: []string{"RS256"}},
		`"HS512": the secret is too short`:         {Secret: strings.Repeat("s", 32), Algorithms: []string{"HS512"}},
		`"rs256": it is unknown; use RS256`:        {Key: public, Algorithms: []string{"rs256"}},
		`query_parameter "a b"`:                    {Key: public, QueryParameter: "a b"},
		"audience: unrecognized placeholder":       {Key: public, Audience: []string{"{x.y}"}},
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		err := j.Provision(ctx)
		cancel()
		switch {
		case err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "plan jwt: "):
			t.Errorf("%v, want %q", err, want)
		case strings.Contains(err.Error(), "hunter2"), strings.Contains(err.Error(), "ssss"), strings.Contains(err.Error(), "MI"):
			t.Errorf("tells a secret: %v", err)
		}
		if err := j.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

// Everything that is wrong is told at once.
func TestAllErrorsAtOnce(t *testing.T) {
	j := &JWT{Key: "x", Leeway: duration(time.Hour), QueryParameter: "?"}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	err := j.Provision(ctx)
	for _, want := range []string{"key: ", "leeway", "query_parameter"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}

// Keys come as files and environment, in every form of PEM.
func TestKeyForms(t *testing.T) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour)} // its dates do not matter
	cert := must(x509.CreateCertificate(rand.Reader, template, template, &rsaKey().PublicKey, rsaKey()))
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + path + "}"
	}
	t.Setenv("JWT_TEST_KEY", publicPEM(&rsaKey().PublicKey))
	raw := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "whatever"}))
	for name, key := range map[string]string{
		"text":        publicPEM(&rsaKey().PublicKey),
		"text before": "issuer's key\n" + publicPEM(&rsaKey().PublicKey),
		"environment": "{env.JWT_TEST_KEY}",
		"file":        file("pub.pem", publicPEM(&rsaKey().PublicKey)),
		"PKCS 1":      file("pkcs1.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)}))),
		"certificate": file("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))),
	} {
		p, _ := newPlan(t, &JWT{Key: key, Audience: []string{"orders"}})
		if v := p.Check(raw); !v.Granted {
			t.Errorf("%s: %+v", name, v)
		}
	}
	p, _ := newPlan(t, &JWT{Secret: file("secret", aSecret+"\r\n"), Audience: []string{"orders"}})
	if v := p.Check(withToken(sign(gojwt.SigningMethodHS256, []byte(aSecret), good()))); !v.Granted {
		t.Errorf("secret in a file: %+v", v)
	}
}

// The options that change what tokens must be.
func TestRuleOptions(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	public := publicPEM(&rsaKey().PublicKey)
	t.Setenv("JWT_TEST_AUDIENCE", "orders")
	for name, c := range map[string]struct {
		plan   *JWT
		change map[string]any
		want   string // "" is granted
	}{
		"audience of a list":            {&JWT{Audience: []string{"a", "orders"}}, map[string]any{"aud": []string{"x", "orders"}}, ""},
		"audience from the environment": {&JWT{Audience: []string{"{env.JWT_TEST_AUDIENCE}"}}, nil, ""},
		"no audience":                   {&JWT{}, map[string]any{"aud": nil}, ""},
		"no issuer":                     {&JWT{}, map[string]any{"iss": nil}, ""},
		"no leeway":                     {&JWT{Leeway: duration(0)}, map[string]any{"exp": at(-2 * time.Second)}, "expired"},
		"default leeway":                {&JWT{}, map[string]any{"exp": at(-20 * time.Second), "nbf": at(20 * time.Second), "iat": at(20 * time.Second)}, ""},
		"most leeway":                   {&JWT{Leeway: duration(5 * time.Minute)}, map[string]any{"exp": at(-290 * time.Second)}, ""},
		"lifetime kept":                 {&JWT{MaxLifetime: caddy.Duration(time.Hour)}, nil, ""},
		"lifetime too long":             {&JWT{MaxLifetime: caddy.Duration(time.Hour - time.Second)}, nil, "lives longer"},
		"lifetime without iat":          {&JWT{MaxLifetime: caddy.Duration(time.Hour)}, map[string]any{"iat": nil}, "when it was issued"},
		"lifetime from long ago":        {&JWT{MaxLifetime: caddy.Duration(time.Hour)}, map[string]any{"iat": 1}, "lives longer"},
		"client: client_id":             {&JWT{}, map[string]any{"azp": nil, "client_id": "shop", "aud": "other"}, ""},
		"client: azp first":             {&JWT{}, map[string]any{"client_id": "other"}, ""},
		"client: aud":                   {&JWT{}, map[string]any{"azp": nil, "aud": "shop"}, ""},
		"client: a claim of choice":     {&JWT{ClientIDClaim: "https://c.example/app"}, map[string]any{"azp": nil, "https://c.example/app": "shop"}, ""},
		"client: the choice is missing": {&JWT{ClientIDClaim: "sub2"}, nil, "for which client"},
		"algorithm not chosen":          {&JWT{Algorithms: []string{"PS256", "RS512"}}, nil, "algorithm"},
		"algorithm chosen":              {&JWT{Algorithms: []string{"PS256", "RS256"}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.plan.Key = public
			p, d := newPlan(t, c.plan)
			r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(c.change)))
			if c.want != "" {
				wantRefused(t, p, d, r, c.want)
				return
			}
			if v := p.Check(r); !v.Granted || v.Principal.Credential != "shop" {
				t.Errorf("%+v", v)
			}
		})
	}
}

// Provisioning talks to nobody, and warns of what opens more than it may seem.
func TestProvision(t *testing.T) {
	i := newIssuer(t, text(keyDocument()))
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	stderr := os.Stderr // where a Caddy context without a configuration logs to
	os.Stderr = log
	p, _ := newPlan(t, &JWT{JWKSURL: strings.Replace(i.URL, "https", "http", 1), Issuer: "any", AllowHTTP: true})
	os.Stderr = stderr
	if p.fetched.fetched.Load() != 0 || i.hits.Load() != 0 {
		t.Error("the keys were fetched")
	}
	raw, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"without audience", "issuer any", "allow_http"} {
		if strings.Count(string(raw), want) != 1 {
			t.Errorf("%s does not say %q once", raw, want)
		}
	}
	var _ plans.Plan = p
}
