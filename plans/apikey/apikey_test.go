package apikey_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/apikey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directory knows some keys, and notes what it is asked.
type directory struct {
	keys  map[string]plans.Standing
	asked []string
}

var (
	began  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ends   = began.AddDate(1, 0, 0)
	limits = &plans.Limits{MaxSessions: 3}
)

func (d *directory) Key(secret string) (plans.Holder, plans.Standing) {
	d.asked = append(d.asked, secret)
	standing := d.keys[secret]
	if standing == plans.Unknown {
		return plans.Holder{}, standing
	}
	return plans.Holder{Application: "app", Subscription: "sub", Credential: "key-1", Since: began, Expires: ends, Limits: limits}, standing
}

func (*directory) Client(string) (plans.Holder, plans.Standing) {
	panic("an API key plan asks for keys alone")
}

const good, other = "cma_ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "cma_OTHER"

func newPlan(t testing.TB, a *apikey.APIKey) (*apikey.APIKey, *directory) {
	t.Helper()
	if err := a.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	d := &directory{keys: map[string]plans.Standing{good: plans.Good, other: plans.Good}}
	a.SetDirectory(d)
	return a, d
}

// request has a query and headers, given as name and value in turn.
func request(query string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/?"+query, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("message_api.plans.api_key")
	if err != nil {
		t.Fatal(err)
	}
	p, ok := info.New().(plans.Plan)
	if !ok || p.Kind() != "api_key" || p.Anonymous() {
		t.Errorf("%+v", p)
	}
}

func TestGoodKey(t *testing.T) {
	want := plans.Principal{Application: "app", Subscription: "sub", Credential: "key-1", Expires: ends, Since: began, Limits: limits}
	both := apikey.APIKey{Header: "x-shop-key", QueryParameter: "api-key"}
	for name, c := range map[string]struct {
		plan apikey.APIKey
		r    *http.Request
	}{
		"default header":            {apikey.APIKey{}, request("", "x-gravitee-api-key", good)},
		"header of one's own":       {both, request("", "X-Shop-Key", good)},
		"query":                     {both, request("a=b&api-key=" + good + "&c")},
		"query, encoded":            {both, request("api%2Dkey=" + strings.Replace(good, "_", "%5f", 1))},
		"query alone":               {apikey.APIKey{Header: "off", QueryParameter: "k"}, request("k=" + good)},
		"the same key in both":      {both, request("api-key="+good, "X-Shop-Key", good)},
		"query off: not looked at":  {apikey.APIKey{}, request("api-key="+other, "X-Gravitee-Api-Key", good)},
		"header off: not looked at": {apikey.APIKey{Header: "off", QueryParameter: "k"}, request("k="+good, "X-Gravitee-Api-Key", other)},
	} {
		t.Run(name, func(t *testing.T) {
			p, d := newPlan(t, &c.plan)
			if !p.Presents(c.r) {
				t.Error("is not said to present a key")
			}
			v := p.Check(c.r)
			if !v.Granted || v.Principal != want {
				t.Errorf("%+v", v)
			}
			if !slices.Equal(d.asked, []string{good}) {
				t.Errorf("the directory was asked for %q", d.asked)
			}
		})
	}
}

// What can't be a key is refused and never looked up, and always counts as presented, so
// that no plan without credentials lets it in.
func TestRefusedWithoutLookUp(t *testing.T) {
	const header = "X-Gravitee-Api-Key"
	for name, c := range map[string]struct {
		r    *http.Request
		want string
	}{
		"empty header":              {request("", header, ""), "empty"},
		"empty parameter":           {request("api-key="), "empty"},
		"parameter without a value": {request("api-key"), "empty"},
		"two headers":               {request("", header, good, header, other), "more than one"},
		"the same header twice":     {request("", header, good, header, good), "more than one"},
		"two good keys in one":      {request("", header, good+", "+good), "characters"},
		"two parameters":            {request("api-key=" + good + "&api-key=" + good), "more than one"},
		"differently encoded":       {request("api-key=" + good + "&api%2dkey=" + other), "more than one"},
		"header and query differ":   {request("api-key="+other, header, good), "more than one"},
		"good header, empty query":  {request("api-key=", header, good), "more than one"},
		"empty header, good query":  {request("api-key="+good, header, ""), "more than one"},
		"257 bytes":                 {request("", header, strings.Repeat("a", 257)), "too long"},
		"a megabyte":                {request("", header, strings.Repeat("a", 1<<20)), "too long"},
		"a megabyte in the query":   {request("api-key=" + strings.Repeat("a", 1<<20)), "too long"},
		"a space":                   {request("", header, good+" x"), "characters"},
		"NUL":                       {request("api-key=" + good + "%00"), "characters"},
		"SQL":                       {request("", header, "' OR 1=1 --"), "characters"},
		"a path":                    {request("", header, "../../etc/passwd"), "characters"},
		"a scheme before it":        {request("", header, "Bearer "+good), "characters"},
		"not UTF-8":                 {request("", header, "\xff\xfe"), "characters"},
		"a broken escape":           {request("api-key=" + good + "%zz"), "characters"},
		"a semicolon":               {request("api-key=" + good + ";x"), "characters"},
	} {
		t.Run(name, func(t *testing.T) {
			p, d := newPlan(t, &apikey.APIKey{QueryParameter: "api-key"})
			if !p.Presents(c.r) {
				t.Error("is not said to present a key")
			}
			v := p.Check(c.r)
			if v.Granted || v.Status != http.StatusUnauthorized || v.Challenge != p.Challenge() || !strings.Contains(v.Detail, c.want) {
				t.Errorf("%+v", v)
			}
			if strings.Contains(v.Detail+v.Cause, good) {
				t.Errorf("the verdict tells the key: %+v", v)
			}
			if len(d.asked) != 0 {
				t.Errorf("the directory was asked for %d keys", len(d.asked))
			}
		})
	}
}

func TestLongestKey(t *testing.T) {
	p, d := newPlan(t, new(apikey.APIKey))
	longest := strings.Repeat("k", 256)
	d.keys[longest] = plans.Good
	if v := p.Check(request("", apikey.DefaultHeader, longest)); !v.Granted {
		t.Errorf("%+v", v)
	}
}

func TestPresentsNothing(t *testing.T) {
	p, _ := newPlan(t, &apikey.APIKey{QueryParameter: "api-key"})
	for _, r := range []*http.Request{
		request(""), request("a=b&c"), request("API-KEY=k&xapi-key=k&api-keyx=k&%zz=k&a=api-key"),
		request("", "Authorization", "Bearer "+good), request("", "X-Gravitee-Api-Keys", good),
	} {
		if p.Presents(r) {
			t.Errorf("%s %v is said to present a key", r.URL, r.Header)
		}
		if v := p.Check(r); v.Granted || v.Status != http.StatusUnauthorized {
			t.Errorf("%s: %+v", r.URL, v)
		}
	}
	off, d := newPlan(t, new(apikey.APIKey))
	if r := request("api-key=" + good); off.Presents(r) || off.Check(r).Granted || len(d.asked) != 0 {
		t.Error("a key in the query was looked at")
	}
}

// What the directory says of a key becomes a status, and the log learns more than the client.
func TestStandings(t *testing.T) {
	for standing, status := range map[plans.Standing]int{
		plans.Unknown: 401, plans.Elsewhere: 401, plans.Expired: 401, plans.Revoked: 401, plans.Closed: 401,
		plans.NotYet: 403, plans.Pending: 403, plans.Paused: 403,
	} {
		p, d := newPlan(t, new(apikey.APIKey))
		d.keys[good] = standing
		v := p.Check(request("", apikey.DefaultHeader, good))
		if v.Granted || v.Status != status || v.Cause != standing.String() || v.Principal != (plans.Principal{}) {
			t.Errorf("%s: %+v", standing, v)
		}
		if want := map[int]string{401: `APIKey realm="message-api", header="X-Gravitee-Api-Key"`}[status]; v.Challenge != want {
			t.Errorf("%s: challenge %q", standing, v.Challenge)
		}
	}
}

// A plan that was never given its subscriptions lets nobody in.
func TestNoDirectory(t *testing.T) {
	p := new(apikey.APIKey)
	if err := p.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if v := p.Check(request("", apikey.DefaultHeader, good)); v.Granted || v.Status != http.StatusUnauthorized {
		t.Errorf("%+v", v)
	}
}

func TestCarrier(t *testing.T) {
	for _, c := range []struct {
		plan           apikey.APIKey
		headers, query []string
		challenge      string
	}{
		{apikey.APIKey{}, []string{"X-Gravitee-Api-Key"}, nil, `APIKey realm="message-api", header="X-Gravitee-Api-Key"`},
		{apikey.APIKey{Header: "x-key", QueryParameter: "key"}, []string{"X-Key"}, []string{"key"},
			`APIKey realm="message-api", header="X-Key", query_parameter="key"`},
		{apikey.APIKey{Header: "off", QueryParameter: "key"}, nil, []string{"key"}, `APIKey realm="message-api", query_parameter="key"`},
		{apikey.APIKey{QueryParameter: "off"}, []string{"X-Gravitee-Api-Key"}, nil, `APIKey realm="message-api", header="X-Gravitee-Api-Key"`},
	} {
		p, _ := newPlan(t, &c.plan)
		if !slices.Equal(p.CredentialHeaders(), c.headers) || !slices.Equal(p.QueryParameters(), c.query) || p.Challenge() != c.challenge {
			t.Errorf("%q %q %q", p.CredentialHeaders(), p.QueryParameters(), p.Challenge())
		}
	}
}

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"api_key":                      `{}`,
		"api_key {\n}":                 `{}`,
		"api_key {\n\theader X-Key\n}": `{"header":"X-Key"}`,
		"api_key {\n\theader off\n\tquery_parameter k\n}": `{"header":"off","query_parameter":"k"}`,
	} {
		a := new(apikey.APIKey)
		if err := a.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := json.Marshal(a)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"api_key shop":                                  `api_key takes no value here: "shop" is one too many, at Testfile:1`,
		"api_key {\n\tkey x\n}":                         `unknown option "key" in plan api_key: use header, query_parameter, at Testfile:2`,
		"api_key {\n\theader\n}":                        `option "header" needs a value, at Testfile:2`,
		"api_key {\n\theader A B\n}":                    `"B" is one too many, at Testfile:2`,
		"api_key {\n\theader A\n\theader B\n}":          "stands twice, first on line 2, at Testfile:3",
		"api_key {\n\theader A\n\tquery_parameter\n\n}": `option "query_parameter" needs a value, at Testfile:3`,
	} {
		err := new(apikey.APIKey).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestImpossibleOptions(t *testing.T) {
	for want, a := range map[string]*apikey.APIKey{
		"both off":                 {Header: "off"},
		"no name of a header":      {Header: "X Key"},
		"header Authorization has": {Header: "authorization"},
		"header Cookie has":        {Header: "COOKIE"},
		`query_parameter "a&b"`:    {QueryParameter: "a&b"},
	} {
		if err := a.Provision(caddy.Context{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "plan api_key: ") {
			t.Errorf("%+v: %v, want %q", a, err, want)
		}
	}
}

// Whatever the query, the plan never looks up what is not a well-formed key, and agrees
// with net/url about the queries that net/url can read.
func FuzzQuery(f *testing.F) {
	f.Add("api-key=" + good)
	f.Add("api%2Dkey=%41&api-key=b;c&&=&%zz=%zz")
	p, d := newPlan(f, &apikey.APIKey{QueryParameter: "api-key"})
	f.Fuzz(func(t *testing.T, query string) {
		d.asked = nil
		r := &http.Request{Header: http.Header{}, URL: &url.URL{RawQuery: query}}
		v, presents := p.Check(r), p.Presents(r)
		for _, key := range d.asked {
			if key == "" || len(key) > 256 || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-") != "" {
				t.Errorf("looked up %q", key)
			}
		}
		if (v.Granted || len(d.asked) > 0) && !presents {
			t.Errorf("%+v, and nothing is presented", v)
		}
		if parsed, err := url.ParseQuery(query); err == nil && presents != parsed.Has("api-key") {
			t.Errorf("presents is %t", presents)
		}
	})
}

type quick struct{ holder plans.Holder }

func (q *quick) Key(string) (plans.Holder, plans.Standing) { return q.holder, plans.Good }

func (q *quick) Client(string) (plans.Holder, plans.Standing) { return q.holder, plans.Good }

func BenchmarkCheck(b *testing.B) {
	for name, c := range map[string]struct {
		plan apikey.APIKey
		r    *http.Request
	}{
		"header": {apikey.APIKey{}, request("", apikey.DefaultHeader, good)},
		"query":  {apikey.APIKey{QueryParameter: "api-key"}, request("from=latest&api-key=" + good)},
		"none":   {apikey.APIKey{}, request("from=latest")},
	} {
		b.Run(name, func(b *testing.B) {
			p, _ := newPlan(b, &c.plan)
			p.SetDirectory(new(quick))
			b.ReportAllocs()
			for b.Loop() {
				if p.Presents(c.r) != p.Check(c.r).Granted {
					b.Fatal("refused")
				}
			}
		})
	}
}
