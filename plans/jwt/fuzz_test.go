package jwt

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
)

// Whatever stands in the header, nobody comes in without a signature, and what is not
// presented is not let in.
func FuzzAuthorization(f *testing.F) {
	p, _ := rsaPlan(f)
	raw := sign(gojwt.SigningMethodRS256, rsaKey(), good())
	f.Add("Bearer " + sign(gojwt.SigningMethodRS256, otherRSA(), good()))
	f.Add("Bearer " + raw[:len(raw)-6] + "AAAAAA")
	f.Add("bearer " + part(`{"alg":"RS256","kid":[]}`) + ".e30.")
	f.Add("Bearer")
	f.Fuzz(func(t *testing.T, value string) {
		r := &http.Request{Header: http.Header{"Authorization": {value}}, URL: new(url.URL)}
		v := p.Check(r)
		if v.Granted || v.Status != http.StatusUnauthorized || v.Challenge == "" {
			t.Errorf("%+v", v)
		}
	})
}

// A key set from anywhere yields keys that can verify, or none.
func FuzzJWKS(f *testing.F) {
	f.Add([]byte(keyDocument(jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "a"}, jose.JSONWebKey{Key: &p256().PublicKey})))
	f.Add([]byte(`{"keys":[` + rfcRSA + `,` + rfcEC + `,{"kty":"OKP","crv":"Ed25519","x":"AA"},{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		set, _, err := parseJWKS(body)
		if err != nil {
			return
		}
		for _, k := range set.keys {
			if _, secret := k.material.([]byte); secret || k.material == nil || len(k.algorithms) == 0 {
				t.Errorf("%+v", k)
			}
		}
	})
}
