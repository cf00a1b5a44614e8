package jwt

import (
	"net/http"
	"strings"
	"testing"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

type quick struct{ plans.Directory }

func (quick) Client(id string) (plans.Holder, plans.Standing) {
	return plans.Holder{Application: "app", Subscription: "sub", Credential: id}, plans.Good
}

// What a plan costs a request: with a token that is seen for the first time, with one that
// is known, and with none.
//
//	go test -run '^$' -bench . ./plans/jwt
func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		method gojwt.SigningMethod
		key    any
		plan   *JWT
	}{
		{gojwt.SigningMethodRS256, rsaKey(), &JWT{Key: publicPEM(&rsaKey().PublicKey)}},
		{gojwt.SigningMethodES256, p256(), &JWT{Key: publicPEM(&p256().PublicKey)}},
		{gojwt.SigningMethodEdDSA, edKey(), &JWT{Key: publicPEM(edKey().Public())}},
		{gojwt.SigningMethodHS256, []byte(aSecret), &JWT{Secret: aSecret}},
	} {
		c.plan.Issuer, c.plan.Audience = issuerName, []string{"orders"}
		p, _ := newPlan(b, c.plan)
		p.SetDirectory(quick{})
		r := withToken(sign(c.method, c.key, good(map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "scope": strings.Repeat("read ", 60)})))
		check := func(b *testing.B) {
			if !p.Presents(r) || !p.Check(r).Granted {
				b.Fatal("refused")
			}
		}
		b.Run(c.method.Alg()+"/first", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				clear(p.recent.young)
				check(b)
			}
		})
		b.Run(c.method.Alg()+"/known", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b)
			}
		})
	}
	p, _ := rsaPlan(b)
	r := &http.Request{Header: http.Header{"Accept": {"*/*"}}}
	b.Run("none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p.Presents(r) {
				b.Fatal("presents")
			}
		}
	})
}

// Many requests at a time share what is remembered.
func BenchmarkKnownParallel(b *testing.B) {
	p, _ := rsaPlan(b)
	p.SetDirectory(quick{})
	r := withToken(sign(gojwt.SigningMethodRS256, rsaKey(), good()))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !p.Check(r).Granted {
				b.Error("refused")
			}
		}
	})
}
