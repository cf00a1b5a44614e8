package jwt

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// python makes a token per algorithm with PyJWT, from private keys in PEM form.
const python = `
import json, sys, time
import jwt
job = json.load(sys.stdin)
now = int(time.time())
claims = {"iss": job["issuer"], "aud": ["x", "orders"], "client_id": "shop", "iat": now, "exp": now + 600}
json.dump({alg: jwt.encode(claims, key, algorithm=alg, headers={"kid": alg[:2] if alg[0] != "E" else alg})
           for alg, key in job["keys"].items()}, sys.stdout)
`

// Tokens of PyJWT are good.
func TestPyJWT(t *testing.T) {
	interpreter := ""
	for _, path := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(path, "-c", "import jwt, cryptography").Run() == nil {
			interpreter = path
			break
		}
	}
	if interpreter == "" {
		t.Skip("there is no Python with PyJWT and cryptography")
	}
	private := func(key any) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
	}
	job := must(json.Marshal(map[string]any{"issuer": issuerName, "keys": map[string]string{
		"RS256": private(rsaKey()), "RS512": private(rsaKey()), "PS256": private(rsaKey()), "PS384": private(rsaKey()),
		"ES256": private(p256()), "ES384": private(p384()), "ES512": private(p521()), "EdDSA": private(edKey()),
	}}))
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(interpreter, "-c", python)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(job), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var tokens map[string]string
	if err := json.Unmarshal(stdout.Bytes(), &tokens); err != nil || len(tokens) != 8 {
		t.Fatalf("%d tokens, %v", len(tokens), err)
	}
	i := newIssuer(t, text(keyDocument(
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "RS"}, jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "PS"},
		jose.JSONWebKey{Key: &p256().PublicKey, KeyID: "ES256"}, jose.JSONWebKey{Key: &p384().PublicKey, KeyID: "ES384"},
		jose.JSONWebKey{Key: &p521().PublicKey, KeyID: "ES512"}, jose.JSONWebKey{Key: edKey().Public(), KeyID: "EdDSA"},
	)))
	p, _ := i.plan(t)
	settled(t, p)
	for alg, token := range tokens {
		if v := p.Check(withToken(token)); !v.Granted || v.Principal.Credential != "shop" {
			t.Errorf("%s: %+v", alg, v)
		}
	}
}

// The example token of RFC 7515, appendix A, with its keys as RFC 7517 writes them.
const (
	rfcPayload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	rfcRS256   = "eyJhbGciOiJSUzI1NiJ9." + rfcPayload + "." +
		"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4" +
		"BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv" +
		"hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	rfcES256 = "eyJhbGciOiJFUzI1NiJ9." + rfcPayload + "." +
		"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	rfcRSA = `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR` +
		`T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6` +
		`65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
	rfcEC = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
)

func TestRFC7515Examples(t *testing.T) {
	set, leftOut, err := parseJWKS([]byte(`{"keys":[` + rfcRSA + "," + rfcEC + "]}"))
	if err != nil || len(leftOut) > 0 {
		t.Fatal(err, leftOut)
	}
	for token, alg := range map[string]jose.SignatureAlgorithm{rfcRS256: jose.RS256, rfcES256: jose.ES256} {
		k, err := set.find("", alg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := k.claims(token, alg)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		if c.Issuer != "joe" || c.Expiry.Time().Unix() != 1300819380 || c.all["http://example.com/is_root"] == nil {
			t.Errorf("%s: %+v", alg, c)
		}
		if _, err := (&rules{}).token(c, time.Now()); err == nil || !strings.Contains(err.Error(), "exp is 2011-03-22") {
			t.Errorf("%s: %v", alg, err)
		}
	}
}
