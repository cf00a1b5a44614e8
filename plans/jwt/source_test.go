package jwt

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// script is an issuer without a network: it answers what it is told, and notes when.
type script struct {
	mu     sync.Mutex
	answer func() (body, cacheControl string, err error)
	times  []time.Time
}

func (s *script) tell(answer func() (body, cacheControl string, err error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, time.Now())
	body, cacheControl, err := s.answer()
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	if cacheControl != "" {
		h.Set("Cache-Control", cacheControl)
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *script) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// gaps are the times between the fetches, the first being after start.
func (s *script) gaps(start time.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var gaps []time.Duration
	for _, t := range s.times {
		gaps = append(gaps, t.Sub(start))
		start = t
	}
	return gaps
}

// scripted is a plan whose keys come from a script, in a bubble of its own time.
func scripted(t *testing.T, maxStale time.Duration) (*JWT, *directory, *script) {
	s, err := newSource(sourceID{url: "https://issuer.example/keys"})
	if err != nil {
		t.Fatal(err)
	}
	issuer := new(script)
	s.client.Transport = issuer
	d := &directory{clients: map[string]plans.Standing{"shop": plans.Good}}
	j := &JWT{JWKSURL: s.id.url, Issuer: issuerName, Audience: []string{"orders"}, fetched: s, directory: d}
	if err := j.resolve(); err != nil {
		t.Fatal(err)
	}
	j.rules.maxStale = maxStale
	return j, d, issuer
}

func rotated(key jose.JSONWebKey) func() (string, string, error) {
	return func() (string, string, error) { return keyDocument(key), "", nil }
}

var errDown = errors.New("connection refused")

func down() (string, string, error) { return "", "", errDown }

// When the key set is fetched again depends on what the answer says, within bounds.
func TestRefreshTimes(t *testing.T) {
	for cacheControl, want := range map[string]time.Duration{
		"":                              10 * time.Minute,
		"public":                        10 * time.Minute,
		"max-age=1800":                  30 * time.Minute,
		`public, Max-Age="7200", x=y`:   2 * time.Hour,
		"max-age=0":                     time.Minute,
		"max-age=59":                    time.Minute,
		"max-age=-5":                    time.Minute,
		"no-cache, max-age=1000":        time.Minute,
		"no-store":                      time.Minute,
		"max-age=31536000":              24 * time.Hour,
		"max-age=99999999999999999999":  10 * time.Minute,
		"max-age=soon":                  10 * time.Minute,
		"s-maxage=5, max-age=600,":      10 * time.Minute,
		"max-age=" + strconv.Itoa(3600): time.Hour,
	} {
		t.Run(cacheControl, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, _, issuer := scripted(t, time.Hour)
				issuer.tell(func() (string, string, error) { return keyDocument(), cacheControl, nil })
				start := time.Now()
				p.Start()
				time.Sleep(2*want + time.Second)
				synctest.Wait()
				if gaps := issuer.gaps(start); len(gaps) != 3 || gaps[0] != 0 || gaps[1] != want || gaps[2] != want {
					t.Errorf("%d fetches, after %s, want every %s", len(gaps), gaps[:min(len(gaps), 4)], want)
				}
				if err := p.fetched.Destruct(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// An issuer that is down is asked less and less often, and its keys are used until they are
// too old.
func TestDownIssuer(t *testing.T) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		p, d, issuer := scripted(t, time.Hour)
		defer p.fetched.Destruct()
		issuer.tell(down)
		r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}), map[string]any{"kid": "k"}))
		begin := time.Now()
		want503(t, p, d, r, "not there yet") // which begins to fetch
		synctest.Wait()
		want503(t, p, d, r, "connection refused")
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("requests waited %s for the issuer", waited)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		gaps := issuer.gaps(begin)
		least := firstRetry
		for i, gap := range gaps[1:] {
			if gap > least || gap < least-least/4 {
				t.Errorf("retry %d after %s, want %s to %s", i, gap, least-least/4, least)
			}
			least = min(2*least, lastRetry)
		}
		if len(gaps) > 22 {
			t.Errorf("%d fetches in ten minutes", len(gaps))
		}

		issuer.tell(rotated(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "k"}))
		time.Sleep(lastRetry)
		synctest.Wait()
		if v := p.Check(r); !v.Granted {
			t.Fatalf("up again: %+v", v)
		}
		issuer.tell(down)
		before := issuer.fetches()
		time.Sleep(10*time.Minute + 4*firstRetry)
		synctest.Wait()
		if n := issuer.fetches() - before; n < 3 {
			t.Errorf("%d fetches within 4 s after the keys were due again: the last trouble is remembered", n)
		}
		// Fresh for at most 10 min, and an hour beyond that.
		time.Sleep(58*time.Minute - 4*firstRetry)
		synctest.Wait()
		if v := p.Check(r); !v.Granted {
			t.Errorf("down for an hour: %+v", v)
		}
		d.asked = nil
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		want503(t, p, d, r, "too long: try again: Get")
		issuer.tell(rotated(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "k"}))
		time.Sleep(lastRetry)
		synctest.Wait()
		if v := p.Check(r); !v.Granted {
			t.Errorf("up again: %+v", v)
		}
	})
}

func want503(t *testing.T, p *JWT, d *directory, r *http.Request, why string) {
	t.Helper()
	v := p.Check(r)
	if v.Granted || v.Status != http.StatusServiceUnavailable || !strings.Contains(v.Cause, why) || strings.Contains(v.Detail, "refused") {
		t.Errorf("%+v, want %q", v, why)
	}
	if len(d.asked) != 0 || !p.Presents(r) {
		t.Errorf("asked for %q", d.asked)
	}
}

// A request never waits for an issuer, however slow that is.
func TestSlowIssuer(t *testing.T) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		p, d, issuer := scripted(t, time.Hour)
		defer p.fetched.Destruct()
		issuer.tell(func() (string, string, error) {
			time.Sleep(4 * time.Second)
			return keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey}), "", nil
		})
		r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good()))
		begin := time.Now()
		for range 100 {
			want503(t, p, d, r, "not there yet")
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("requests waited %s", waited)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if v := p.Check(r); !v.Granted {
			t.Errorf("%+v", v)
		}
		if n := issuer.fetches(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// An unknown key id leads to a fetch, but nobody can have one made more than every 30 s.
func TestUnknownKid(t *testing.T) {
	rsaKey()
	otherRSA()
	synctest.Test(t, func(t *testing.T) {
		p, d, issuer := scripted(t, time.Hour)
		defer p.fetched.Destruct()
		issuer.tell(rotated(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "old"}))
		p.Start()
		synctest.Wait()
		old := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good(), map[string]any{"kid": "old"}))
		next := withToken(sign(gojwt.SigningMethodRS256, otherRSA(), good(), map[string]any{"kid": "new"}))
		if v := p.Check(old); !v.Granted {
			t.Fatalf("%+v", v)
		}
		d.asked = nil
		issuer.tell(rotated(jose.JSONWebKey{Key: &otherRSA().PublicKey, KeyID: "new"}))
		start := time.Now()
		for range 29 { // an attacker with 10 tokens a second
			for range 10 {
				wantRefused(t, p, d, next, "no key of the issuer has this id")
				time.Sleep(100 * time.Millisecond)
			}
		}
		if n := issuer.fetches(); n != 1 {
			t.Errorf("%d fetches within 29 s", n)
		}
		time.Sleep(time.Second)
		wantRefused(t, p, d, next, "no key of the issuer has this id")
		synctest.Wait()
		if gaps := issuer.gaps(start); len(gaps) != 2 || gaps[1] != 30*time.Second {
			t.Fatalf("fetched after %s", gaps)
		}
		if v := p.Check(next); !v.Granted {
			t.Errorf("the new key: %+v", v)
		}
		d.asked = nil
		wantRefused(t, p, d, old, "no key of the issuer has this id") // although it was good, and is remembered
	})
}

// A document that did not change leaves the remembered tokens good.
func TestUnchangedKeySet(t *testing.T) {
	rsaKey()
	synctest.Test(t, func(t *testing.T) {
		p, _, issuer := scripted(t, time.Hour)
		defer p.fetched.Destruct()
		issuer.tell(rotated(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "k"}))
		p.Start()
		synctest.Wait()
		first := p.fetched.current.Load()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		second := p.fetched.current.Load()
		if first == second || first.keySet != second.keySet || !second.fresh.After(first.fresh) {
			t.Errorf("%v, then %v", first, second)
		}
	})
}

// A request of a plan that was never provisioned, or is cleaned up, waits for nothing.
func TestAfterCleanup(t *testing.T) {
	i := newIssuer(t, text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey})))
	p, _ := i.plan(t)
	settled(t, p)
	if err := p.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if v := p.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good()))); !v.Granted {
		t.Errorf("a request that was under way: %+v", v)
	}
	var zero JWT
	if v := zero.Check(withToken("a.b.c")); v.Granted {
		t.Errorf("%+v", v)
	}
}

// A reload keeps the keys: the plan of the new configuration has them at once.
func TestReloadKeepsKeys(t *testing.T) {
	i := newIssuer(t, text(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey})))
	before, _ := i.plan(t)
	settled(t, before)
	after, _ := i.plan(t)
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if err := before.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if n, _ := sources.References(after.source); n != 1 {
		t.Errorf("%d plans hold the keys, after one of two gave them back, twice", n)
	}
	if v := after.Check(withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good()))); !v.Granted {
		t.Errorf("%+v", v)
	}
	if n := i.hits.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	other, _ := newPlan(t, &JWT{JWKSURL: i.URL + "/keys", Issuer: issuerName}) // without the authority
	settled(t, other)
	if failure := other.fetched.failure.Load(); failure == nil || !strings.Contains((*failure).Error(), "certificate") {
		t.Error("another trust shares the keys")
	}
}
