package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The vectors are those of the official libraries' own tests.
func TestSignOfficialVectors(t *testing.T) {
	for _, c := range []struct {
		secret, id, body, want string
		at                     int64
	}{
		{
			"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", `{"test": 2432232314}`,
			"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", 1614265330,
		},
		{
			"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
			`{"email":"test@example.com","username":"test_user"}`,
			"v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=", 1649367553,
		},
	} {
		secret, err := ParseSecret(c.secret)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(c.at, 999)
		if got := Sign(c.id, at, []byte(c.body), []Secret{secret}); got != c.want {
			t.Errorf("Sign = %s, want %s", got, c.want)
		}
		if got, want := Sign(c.id, at, []byte(c.body), []Secret{testSecret(7), secret}), " "+c.want; !strings.HasSuffix(got, want) {
			t.Errorf("with two secrets the second one is not last: %s", got)
		}
	}
	if got := Sign("msg_1", testTime, nil, nil); got != "" {
		t.Errorf("without a secret: %q", got)
	}
}

// States of signing are used again, also by several goroutines.
func TestSignersAreReused(t *testing.T) {
	secrets := []Secret{testSecret(1), bytes.Repeat([]byte{9}, 64)}
	all := newSigners(secrets)
	done := make(chan error)
	for g := range 4 {
		go func() {
			for i := range 200 {
				body := bytes.Repeat([]byte{byte(g)}, i*7)
				id := fmt.Sprintf("msg_%d_%s", i, strings.Repeat("x", i%90))
				if got, want := string(all.append(nil, id, []byte("1795000000"), body)), Sign(id, testTime, body, secrets); got != want {
					done <- fmt.Errorf("%s: %s, want %s", id, got, want)
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func FuzzSignVerifies(f *testing.F) {
	f.Add("msg_1", []byte(nil), int64(0))
	f.Add("msg_2", []byte("\xff\x00"), int64(3))
	secret := testSecret(5)
	webhook, err := standardwebhooks.NewWebhook(secret.Text())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id string, body []byte, ago int64) {
		if checkID(id) != nil {
			t.Skip()
		}
		at := time.Now().Add(-time.Duration(ago%200) * time.Second)
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
		h.Set("webhook-signature", Sign(id, at, body, []Secret{testSecret(6), secret}))
		if err := webhook.Verify(body, h); err != nil {
			t.Error(err)
		}
	})
}

func TestParseSecret(t *testing.T) {
	for _, c := range []struct{ text, wants string }{
		{"", "is empty"},
		{"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"},
		{"whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "white space"},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "white space"},
		{"whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "asymmetric"},
		{"whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "asymmetric"},
		{"whsec_", "0 bytes: it needs 24 to 64"},
		{Secret(make([]byte, 22)).Text(), "22 bytes: it needs 24 to 64"},
		{Secret(make([]byte, 23)).Text(), "23 bytes: it needs 24 to 64"},
		{Secret(make([]byte, 65)).Text(), "65 bytes: it needs 24 to 64"},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa_-", "alphabet for URLs"},
		{strings.TrimRight(testSecret(1).Text(), "="), "multiple of 4"},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!", "only A-Z"},
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==", "only A-Z"}, // bits that no encoder leaves
	} {
		secret, err := ParseSecret(c.text)
		if err == nil || secret != nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%q: %v, want %q", c.text, err, c.wants)
		} else if tail := strings.TrimPrefix(c.text, "whsec_"); len(tail) > 5 && strings.Contains(err.Error(), tail[:6]) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
	for _, size := range []int{24, 25, 26, 32, 63, 64} {
		want := Secret(bytes.Repeat([]byte{0xfb}, size))
		if got, err := ParseSecret(want.Text()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v, %v", size, got, err)
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("whsec_x")
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := ParseSecret(text)
		if (err == nil) != (secret != nil) {
			t.Fatalf("%v, %v", secret, err)
		}
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Error("the error repeats the input")
			}
			return
		}
		if secret.Text() != text {
			t.Errorf("%q is read as %q", text, secret.Text())
		}
	})
}

func TestNewSecret(t *testing.T) {
	one, two := NewSecret(), NewSecret()
	if one == two {
		t.Error("two secrets are the same")
	}
	if secret, err := ParseSecret(one); err != nil || len(secret) != 32 {
		t.Errorf("%d bytes, %v", len(secret), err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	secret := Secret("0123456789abcdef0123456789abcdef")
	opt := Options{Secrets: []Secret{secret}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{secret, opt, &opt, fmt.Errorf("wrap: %w", errors.New(secret.String()))} {
			if text := fmt.Sprintf(format, value); strings.Contains(text, "0123456789") || strings.Contains(text, "30313233") || strings.Contains(text, "48 49 50") {
				t.Errorf("%s prints %s", format, text)
			}
		}
	}
	if text, err := json.Marshal(opt.Secrets); err != nil || strings.Contains(string(text), "MDEyMzQ1") {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}
