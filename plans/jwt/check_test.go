package jwt

import (
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("message_api.plans.jwt")
	if err != nil {
		t.Fatal(err)
	}
	p, ok := info.New().(plans.Plan)
	if !ok || p.Kind() != "jwt" || p.Anonymous() {
		t.Errorf("%+v", p)
	}
}

// Every algorithm, by another library, with every form of key.
func TestAlgorithms(t *testing.T) {
	for method, key := range map[gojwt.SigningMethod]any{
		gojwt.SigningMethodRS256: rsaKey(), gojwt.SigningMethodRS384: rsaKey(), gojwt.SigningMethodRS512: rsaKey(),
		gojwt.SigningMethodPS256: rsaKey(), gojwt.SigningMethodPS384: rsaKey(), gojwt.SigningMethodPS512: rsaKey(),
		gojwt.SigningMethodES256: p256(), gojwt.SigningMethodES384: p384(), gojwt.SigningMethodES512: p521(),
		gojwt.SigningMethodEdDSA: edKey(),
		gojwt.SigningMethodHS256: []byte(aSecret), gojwt.SigningMethodHS384: []byte(aSecret), gojwt.SigningMethodHS512: []byte(aSecret),
	} {
		t.Run(method.Alg(), func(t *testing.T) {
			j := &JWT{Secret: aSecret, Issuer: issuerName, Audience: []string{"orders"}}
			if k, ok := key.(crypto.Signer); ok {
				j.Secret, j.Key = "", publicPEM(k.Public())
			}
			p, d := newPlan(t, j)
			raw := sign(method, key, good())
			v := p.Check(withToken(raw))
			if !v.Granted || v.Principal.Credential != "shop" || v.Principal.Subscription != "sub" {
				t.Errorf("%+v", v)
			}
			if !slices.Equal(d.asked, []string{"shop"}) {
				t.Errorf("the directory was asked for %q", d.asked)
			}
			d.asked = nil
			i := strings.LastIndexByte(raw, '.') + 5
			changed := raw[:i] + flipped(raw[i]) + raw[i+1:]
			wantRefused(t, p, d, withToken(changed), "signature is wrong")
		})
	}
}

// flipped is another character of base64url.
func flipped(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// A session ends when the token is no longer taken, or the subscription ends.
func TestExpires(t *testing.T) {
	for name, c := range map[string]struct{ exp, want time.Time }{
		"the token first":        {subscriptionEnds.Add(-time.Hour), subscriptionEnds.Add(-time.Hour + 30*time.Second)},
		"the subscription first": {subscriptionEnds.Add(time.Hour), subscriptionEnds},
		"within the leeway":      {time.Now().Add(-20 * time.Second).Truncate(time.Second), time.Now().Add(-20 * time.Second).Truncate(time.Second).Add(30 * time.Second)},
	} {
		p, _ := rsaPlan(t)
		v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"exp": c.exp.Unix()}))))
		if !v.Granted || !v.Principal.Expires.Equal(c.want) {
			t.Errorf("%s: %+v, want %s", name, v, c.want)
		}
	}
	p, d := rsaPlan(t)
	p.SetDirectory(forever{d})
	v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"exp": 1e15}))))
	if !v.Granted || v.Principal.Expires.Year() != 9999 {
		t.Errorf("%+v", v)
	}
}

type forever struct{ plans.Directory }

func (f forever) Client(id string) (plans.Holder, plans.Standing) {
	h, s := f.Directory.Client(id)
	h.Expires = time.Time{}
	return h, s
}

// What the directory says of a client becomes a status, and the log learns more than it.
func TestStandings(t *testing.T) {
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	for standing, status := range map[plans.Standing]int{
		plans.Unknown: 401, plans.Elsewhere: 401, plans.Expired: 401, plans.Revoked: 401, plans.Closed: 401,
		plans.NotYet: 403, plans.Pending: 403, plans.Paused: 403,
	} {
		p, d := rsaPlan(t)
		d.clients["shop"] = standing
		for range 2 { // the second time from memory
			v := p.Check(withToken(raw))
			if v.Granted || v.Status != status || v.Cause != standing.String() || v.Principal != (plans.Principal{}) || (v.Challenge != "") != (status == 401) {
				t.Errorf("%s: %+v", standing, v)
			}
		}
	}
	p, _ := rsaPlan(t)
	p.SetDirectory(nil)
	if v := p.Check(withToken(raw)); v.Granted || v.Status != http.StatusUnauthorized {
		t.Errorf("without a directory: %+v", v)
	}
}

// Where a token may stand, and what counts as presented.
func TestWhereTokensStand(t *testing.T) {
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	header := func(values ...string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/?access_token=off", nil)
		r.Header["Authorization"] = values
		return r
	}
	for name, c := range map[string]struct {
		r    *http.Request
		want string // "" is granted, - is not presented
	}{
		"Bearer":                  {header("Bearer " + raw), ""},
		"lower case":              {header("bearer " + raw), ""},
		"upper case, many blanks": {header(" BEARER  \t" + raw), ""},
		"a tab":                   {header("Bearer\t" + raw), ""},
		"no token":                {header("Bearer"), "the token is empty"},
		"a blank":                 {header("Bearer "), "the token is empty"},
		"something behind it":     {header("Bearer " + raw + " x"), "no signed JSON Web Token"},
		"two in one":              {header("Bearer " + raw + ", Bearer " + raw), "no signed JSON Web Token"},
		"no JWT":                  {header("Bearer opaque"), "no signed JSON Web Token"},
		"four parts":              {header("Bearer " + raw + ".x"), "no signed JSON Web Token"},
		"JSON serialization":      {header(`Bearer {"payload":"","signatures":[]}`), "no signed JSON Web Token"},
		"standard base64":         {header("Bearer " + strings.ReplaceAll(raw, ".", "+.")), "no signed JSON Web Token"},
		"no header at all":        {header(), "-"},
		"Basic":                   {header("Basic eDp5"), "-"},
		"another scheme":          {header("BearerToken " + raw), "-"},
		"in a query while off":    {httptest.NewRequest(http.MethodGet, "/?access_token="+raw, nil), "-"},
	} {
		t.Run(name, func(t *testing.T) {
			p, d := rsaPlan(t)
			switch c.want {
			case "":
				if v := p.Check(c.r); !p.Presents(c.r) || !v.Granted {
					t.Errorf("%+v", v)
				}
			case "-":
				if v := p.Check(c.r); p.Presents(c.r) || v.Granted || v.Status != http.StatusUnauthorized || len(d.asked) > 0 {
					t.Errorf("%+v", v)
				}
			default:
				wantRefused(t, p, d, c.r, c.want)
			}
		})
	}
}

func TestQueryParameter(t *testing.T) {
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	p, d := newPlan(t, &JWT{Key: publicPEM(&rsaKey().PublicKey), Audience: []string{"orders"}, QueryParameter: "access_token"})
	get := func(query string) *http.Request { return httptest.NewRequest(http.MethodGet, "/?"+query, nil) }
	for _, query := range []string{"access_token=" + raw, "a=b&access%5ftoken=" + raw + "&c"} {
		if v := p.Check(get(query)); !v.Granted || !p.Presents(get(query)) {
			t.Errorf("%s: %+v", query, v)
		}
	}
	d.asked = nil
	both := get("access_token=" + raw)
	both.Header.Set("Authorization", "Bearer "+raw)
	wantRefused(t, p, d, both, "more than one")
	wantRefused(t, p, d, get("access_token="+raw+"&access_token="+raw), "more than one")
	wantRefused(t, p, d, get("access_token"), "empty")
	wantRefused(t, p, d, get("access_token="+raw+"%zz"), "no signed")
	wantRefused(t, p, d, get("access_token="+raw+";"), "no signed")
	if p.Presents(get("x_access_token=" + raw + "&access_tokens=x&%zz")) {
		t.Error("another parameter is said to be a token")
	}
	if got := fmt.Sprint(p.QueryParameters(), p.CredentialHeaders()); got != "[access_token] [Authorization]" {
		t.Error(got)
	}
	q, _ := rsaPlan(t)
	if got := q.QueryParameters(); len(got) != 0 {
		t.Errorf("%q without the option", got)
	}
}

// A token that was good is remembered, and yet checked every time for what can change.
func TestRemembered(t *testing.T) {
	p, d := rsaPlan(t)
	now := time.Now()
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"nbf": now.Unix(), "exp": now.Add(time.Minute).Unix()}))
	first, err := p.verify(raw, now)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.verify(raw, now.Add(time.Minute)); err != nil || again != first {
		t.Errorf("%v, %v: was verified again", again, err)
	}
	if _, err := p.verify(raw, now.Add(-time.Hour)); err == nil {
		t.Error("is taken before its time, once it was good")
	}
	if _, err := p.verify(raw, now.Add(2*time.Minute)); err == nil {
		t.Error("is taken after its time, once it was good")
	}
	if len(p.recent.young)+len(p.recent.old) != 0 {
		t.Error("what has expired is kept")
	}
	d.clients["shop"] = plans.Closed
	if v := p.Check(withToken(raw)); v.Granted {
		t.Error("is taken though its subscription is closed")
	}
	p.fixed = newKeySet(nil)
	if _, err := p.verify(raw, now); err == nil {
		t.Error("is taken though the issuer has dropped the key")
	}
}

func TestRecentIsBounded(t *testing.T) {
	var r recent
	set, now := new(keySet), time.Now()
	hot := digest{255}
	r.add(hot, &token{keys: set, expires: now.Add(time.Hour)})
	for i := range 10 * maxRecent {
		r.add(digest{byte(i), byte(i >> 8), byte(i >> 16)}, &token{keys: set, expires: now.Add(time.Hour)})
		if i%100 == 0 && r.get(hot, set, now) == nil {
			t.Fatalf("what is asked for is forgotten after %d others", i)
		}
	}
	if n := len(r.young) + len(r.old); n > 2*maxRecent {
		t.Errorf("%d tokens are remembered", n)
	}
}
