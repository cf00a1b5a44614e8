package jwt

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
)

// part encodes one part of a token by hand.
func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// forged is a token with any header and payload, signed with the issuer's own key: what is
// refused is refused for its content, and not for its signature.
func forged(header, payload string) string {
	signed := part(header) + "." + part(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(must(gojwt.SigningMethodRS256.Sign(signed, rsaKey())))
}

func goodPayload(changes ...map[string]any) string {
	return string(must(json.Marshal(good(changes...))))
}

func TestForgedIsGoodOtherwise(t *testing.T) {
	p, _ := rsaPlan(t)
	if v := p.Check(withToken(forged(`{"alg":"RS256","typ":"JWT"}`, goodPayload()))); !v.Granted {
		t.Fatalf("%+v: the tests that use it would prove nothing", v)
	}
}

func TestAttackAlgNone(t *testing.T) {
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		p, d := rsaPlan(t)
		unsigned := part(`{"alg":"`+alg+`","typ":"JWT"}`) + "." + part(goodPayload()) + "."
		wantRefused(t, p, d, withToken(unsigned), "algorithm")
		wantRefused(t, p, d, withToken(unsigned+"AAAA"), "algorithm")
	}
	p, d := rsaPlan(t)
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodNone, gojwt.UnsafeAllowNoneSignatureType, good())), "algorithm")
	wantRefused(t, p, d, withToken(part(`{"typ":"JWT"}`)+"."+part(goodPayload())+"."), "algorithm")
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	wantRefused(t, p, d, withToken(raw[:strings.LastIndexByte(raw, '.')+1]), "signature is wrong")
}

// The public key is known to everybody: nobody may use it as the secret of an HMAC.
func TestAttackRSHSConfusion(t *testing.T) {
	public := publicPEM(&rsaKey().PublicKey)
	der := must(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey))
	for name, secret := range map[string]string{
		"PEM": public, "PEM without line end": strings.TrimSpace(public), "DER": string(der),
		"PKCS 1": string(x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)), "modulus": string(rsaKey().N.Bytes()),
		"JWK": string(must(json.Marshal(jose.JSONWebKey{Key: &rsaKey().PublicKey}))), "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []gojwt.SigningMethod{gojwt.SigningMethodHS256, gojwt.SigningMethodHS384, gojwt.SigningMethodHS512} {
				p, d := rsaPlan(t)
				wantRefused(t, p, d, withToken(sign(method, []byte(secret), good())), "algorithm")
			}
		})
	}
}

// A key set is public, so that a secret in it is none.
func TestAttackSecretInKeySet(t *testing.T) {
	i := newIssuer(t, text(keyDocument(
		jose.JSONWebKey{Key: []byte(aSecret), KeyID: "hmac", Algorithm: "HS256"},
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa"},
	)))
	p, d := i.plan(t)
	settled(t, p)
	for _, kid := range []any{"hmac", "rsa", nil} {
		wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodHS256, []byte(aSecret), good(), map[string]any{"kid": kid})), "algorithm")
	}
	if n := len(p.fetched.current.Load().keys); n != 1 {
		t.Errorf("%d keys are taken", n)
	}
}

// A key id is a key of a map, and nothing is looked up anywhere by it.
func TestAttackKidTraversal(t *testing.T) {
	i := newIssuer(t, text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa"})))
	p, d := i.plan(t)
	settled(t, p)
	before := i.hits.Load()
	for _, kid := range []string{
		"../../../../../../dev/null", "/dev/null", "file:///etc/passwd", "x' UNION SELECT 'secret' --", "$(id)", "|id",
		"https://attacker.example/keys", "rsa\x00", "RSA", " rsa", strings.Repeat("k", 8000), "{env.SECRET}", "*", "\u202e",
	} {
		header := map[string]any{"kid": kid}
		wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(), header)), "not signed by a known key")
		wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), header)), "not signed by a known key")
		wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodHS256, []byte(" "), good(), header)), "algorithm")
	}
	for _, kid := range []string{`["rsa"]`, `{"a":1}`, `1`, `true`} {
		wantRefused(t, p, d, withToken(forged(`{"alg":"RS256","kid":`+kid+`}`, goodPayload())), "no signed JSON Web Token")
	}
	if n := i.hits.Load(); n != before {
		t.Errorf("made-up key ids caused %d fetches right after one", n-before)
	}
	if v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "rsa"}))); !v.Granted {
		t.Errorf("%+v", v)
	}
}

// Keys that a token brings along, or leads to, prove nothing.
func TestAttackKeyInHeader(t *testing.T) {
	var fetched atomic.Int64
	attacker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		text(keyDocument(jose.JSONWebKey{Key: &otherRSA().PublicKey, KeyID: "mine"}))(w, r)
	}))
	defer attacker.Close()
	i := newIssuer(t, text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "rsa"})))
	fromURL, d1 := i.plan(t)
	settled(t, fromURL)
	fromPEM, d2 := rsaPlan(t)
	for name, header := range map[string]map[string]any{
		"jku":               {"jku": attacker.URL, "kid": "mine"},
		"jku, known kid":    {"jku": attacker.URL, "kid": "rsa"},
		"x5u":               {"x5u": attacker.URL},
		"x5c":               {"x5c": []string{base64.StdEncoding.EncodeToString(i.Certificate().Raw)}, "kid": "rsa"},
		"x5c that is none":  {"x5c": []string{"AAAA"}, "kid": "rsa"},
		"x5c with a secret": {"x5c": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}))}},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, fromURL, d1, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(), header)), "")
			wantRefused(t, fromPEM, d2, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(), header)), "")
		})
	}
	t.Run("ignored by itself", func(t *testing.T) {
		header := map[string]any{"jku": attacker.URL, "x5u": attacker.URL, "kid": "rsa"}
		p, _ := i.plan(t)
		if v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), header))); !v.Granted {
			t.Errorf("%+v", v)
		}
	})
	t.Run("jwk", func(t *testing.T) {
		header := map[string]any{"jwk": jose.JSONWebKey{Key: &otherRSA().PublicKey}}
		wantRefused(t, fromPEM, d2, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(), header)), "its own key")
		wantRefused(t, fromPEM, d2, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), header)), "its own key")
		wantRefused(t, fromPEM, d2, withToken(forged(`{"alg":"RS256","jwk":null}`, goodPayload())), "its own key")
	})
	t.Run("crit", func(t *testing.T) {
		for _, crit := range []string{`"crit":["b64"],"b64":false`, `"crit":["exp"]`, `"crit":[]`, `"b64":false`, `"b64":true`, `"crit":null`} {
			wantRefused(t, fromPEM, d2, withToken(forged(`{"alg":"RS256",`+crit+`}`, goodPayload())), "extension")
		}
	})
	if n := fetched.Load(); n != 0 {
		t.Errorf("the attacker's server was asked %d times", n)
	}
}

// What stands twice could be read in two ways.
func TestAttackDuplicates(t *testing.T) {
	p, d := rsaPlan(t)
	wantRefused(t, p, d, withToken(forged(`{"alg":"none","alg":"RS256"}`, goodPayload())), "duplicate")
	wantRefused(t, p, d, withToken(forged(`{"alg":"RS256","typ":"JWT","typ":"JWT"}`, goodPayload())), "duplicate")
	wantRefused(t, p, d, withToken(forged(`{"alg":"RS256","x":1,"x":1}`, goodPayload())), "duplicate")
	wantRefused(t, p, d, withToken(forged(`{"alg":"RS256","ALG":"none"}`, `{"azp":"shop","azp":"bank",`+goodPayload()[1:])), "duplicate")
	for _, claim := range []string{`"exp":1`, `"iss":"x"`, `"aud":"orders"`, `"azp":"shop"`, `"exp":9999999999`} {
		wantRefused(t, p, d, withToken(forged(`{"alg":"RS256"}`, `{`+claim+`,`+goodPayload()[1:])), "malformed")
	}
	// Names are told apart by case: EXP is no exp.
	wantRefused(t, p, d, withToken(forged(`{"alg":"RS256"}`, `{"EXP":9999999999,`+goodPayload(map[string]any{"exp": nil})[1:])), "no time at which it expires")
	// A key set may name a key twice, but not two keys alike.
	same := jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "k"}
	other := jose.JSONWebKey{Key: &otherRSA().PublicKey, KeyID: "k"}
	for document, want := range map[string]bool{keyDocument(same, same): true, keyDocument(same, other): false, keyDocument(other, same): false} {
		i := newIssuer(t, text(document))
		p, d := i.plan(t)
		settled(t, p)
		raw := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "k"}))
		if want {
			if v := p.Check(raw); !v.Granted {
				t.Errorf("%+v", v)
			}
			continue
		}
		wantRefused(t, p, d, raw, "more than one key")
	}
}

// Neither a longer curve nor another algorithm of the same family goes with a key.
func TestAttackCurveMismatch(t *testing.T) {
	p, d := newPlan(t, &JWT{Key: publicPEM(&p256().PublicKey), Audience: []string{"orders"}})
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodES384, p384(), good())), "algorithm")
	i := newIssuer(t, text(keyDocument(
		jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "256"}, jose.JSONWebKey{Key: &p384().PublicKey, KeyID: "384"},
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "ps", Algorithm: "PS256"},
	)))
	p, d = i.plan(t)
	settled(t, p)
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodES384, p384(), good(), map[string]any{"kid": "256"})), "not for this algorithm")
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodES256, p256(), good(), map[string]any{"kid": "384"})), "not for this algorithm")
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "256"})), "not for this algorithm")
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "ps"})), "not for this algorithm")
	// A signature of zeros is good for every message where r and s are not checked.
	zeros := part(`{"alg":"ES256","kid":"256"}`) + "." + part(goodPayload()) + "." + part(strings.Repeat("\x00", 64))
	wantRefused(t, p, d, withToken(zeros), "signature is wrong")
}

func TestAttackTwoAuthorizationHeaders(t *testing.T) {
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	for _, values := range [][]string{
		{"Bearer " + raw, "Bearer " + raw}, {"Bearer x", "Bearer " + raw}, {"Basic eDp5", "Bearer " + raw}, {"Bearer " + raw, ""},
	} {
		p, d := rsaPlan(t)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = values
		wantRefused(t, p, d, r, "more than one")
	}
}

func TestAttackLongToken(t *testing.T) {
	p, d := rsaPlan(t)
	padded := sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"x": strings.Repeat("x", 16<<10)}))
	wantRefused(t, p, d, withToken(padded), "too long")
	wantRefused(t, p, d, withToken(strings.Repeat("a", 10<<20)), "too long")
	wantRefused(t, p, d, withToken(strings.Repeat(".", 16<<10)), "no signed")
	nested := `{"alg":"RS256","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}"
	wantRefused(t, p, d, withToken(part(nested)+".e30.AAAA"), "")
	fits := sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"x": strings.Repeat("x", 11<<10)}))
	if v := p.Check(withToken(fits)); !v.Granted {
		t.Errorf("%d bytes: %+v", len(fits), v)
	}
}

// Another issuer's token is not good here, whatever it says of itself.
func TestAttackOtherIssuer(t *testing.T) {
	p, d := rsaPlan(t)
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good())), "signature is wrong")
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(map[string]any{"iss": "https://other.example"}))), "signature is wrong")
	wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"iss": "https://other.example"}))), "another issuer")
}

// Signed by the right key, and not good nevertheless.
func TestAttackClaims(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, c := range map[string]struct {
		change map[string]any
		want   string
	}{
		"no iss":                 {map[string]any{"iss": nil}, "another issuer"},
		"iss in other case":      {map[string]any{"iss": strings.ToUpper(issuerName)}, "another issuer"},
		"iss with a slash":       {map[string]any{"iss": issuerName + "/"}, "another issuer"},
		"iss is a list":          {map[string]any{"iss": []string{issuerName}}, "malformed"},
		"no aud":                 {map[string]any{"aud": nil}, "another audience"},
		"other aud":              {map[string]any{"aud": "bank"}, "another audience"},
		"several other aud":      {map[string]any{"aud": []string{"bank", "ORDERS", ""}}, "another audience"},
		"no list of aud":         {map[string]any{"aud": map[string]any{"orders": true}}, "malformed"},
		"aud of numbers":         {map[string]any{"aud": []any{1, "orders"}}, "malformed"},
		"no exp":                 {map[string]any{"exp": nil}, "no time at which it expires"},
		"exp null":               {map[string]any{"exp": json.RawMessage("null")}, "no time at which it expires"},
		"exp 0":                  {map[string]any{"exp": 0}, "expired"},
		"exp before the leeway":  {map[string]any{"exp": at(-32 * time.Second)}, "expired"},
		"exp negative":           {map[string]any{"exp": -1}, "expired"},
		"exp as text":            {map[string]any{"exp": "9999999999"}, "malformed"},
		"exp that overflows":     {map[string]any{"exp": json.RawMessage("1e300")}, "malformed"},
		"nbf in the future":      {map[string]any{"nbf": at(time.Minute)}, "not valid yet"},
		"nbf that overflows":     {map[string]any{"nbf": json.RawMessage("9223372036854775807")}, "malformed"},
		"iat in the future":      {map[string]any{"iat": at(time.Minute)}, "issued in the future"},
		"no client":              {map[string]any{"azp": nil, "aud": []string{"orders", "b"}}, "does not tell for which client"},
		"client is a number":     {map[string]any{"azp": 7}, "no text"},
		"client is empty":        {map[string]any{"azp": "", "client_id": "shop"}, "empty or too long"},
		"client is long":         {map[string]any{"azp": strings.Repeat("s", 257)}, "empty or too long"},
		"bound to a certificate": {map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}, "bound to a key"},
		"bound to a key (DPoP)":  {map[string]any{"cnf": map[string]any{"jkt": "x"}}, "bound to a key"},
	} {
		t.Run(name, func(t *testing.T) {
			p, d := rsaPlan(t)
			for range 2 { // a refusal is not remembered as anything else
				wantRefused(t, p, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(c.change))), c.want)
			}
		})
	}
	for _, payload := range []string{"", "null", "[]", `"x"`, "{", "7"} {
		p, d := rsaPlan(t)
		wantRefused(t, p, d, withToken(forged(`{"alg":"RS256"}`, payload)), "")
	}
}

func TestAttackTyp(t *testing.T) {
	p, d := rsaPlan(t)
	for typ, granted := range map[string]bool{
		"JWT": true, "jwt": true, "at+jwt": true, "AT+JWT": true, "application/at+jwt": true, "": true,
		"dpop+jwt": false, "logout+jwt": false, "JWE": false, "secevent+jwt": false,
	} {
		raw := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"typ": typ}))
		if !granted {
			wantRefused(t, p, d, raw, "another type")
		} else if v := p.Check(raw); !v.Granted {
			t.Errorf("%q: %+v", typ, v)
		}
		d.asked = nil
	}
	strict, d := newPlan(t, &JWT{Key: publicPEM(&rsaKey().PublicKey), Audience: []string{"orders"}, Typ: []string{"application/at+JWT"}})
	wantRefused(t, strict, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good())), "another type")
	wantRefused(t, strict, d, withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"typ": nil})), "another type")
	if v := strict.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"typ": "at+jwt"}))); !v.Granted {
		t.Errorf("%+v", v)
	}
}
