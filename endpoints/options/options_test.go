package options_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

func TestCaddyfile(t *testing.T) {
	var got struct {
		tls  *options.TLS
		auth *options.Auth
	}
	read := func(text string) error {
		d := caddyfile.NewTestDispenser("test {\n" + text + "\n}")
		d.Next()
		return parse.Block(d, "test", options.ParseTLS(&got.tls), options.ParseAuth(&got.auth))
	}
	if err := read("auth alice {env.SECRET}\ntls {\nca_file a\ncert b\nkey c\nserver_name d\ninsecure_skip_verify\n}"); err != nil {
		t.Fatal(err)
	}
	if *got.tls != (options.TLS{CAFile: "a", Cert: "b", Key: "c", ServerName: "d", InsecureSkipVerify: true}) {
		t.Errorf("tls is %+v", *got.tls)
	}
	if *got.auth != (options.Auth{User: "alice", Password: "{env.SECRET}"}) {
		t.Errorf("auth is %+v", *got.auth)
	}
	if err := read("tls"); err != nil || *got.tls != (options.TLS{}) {
		t.Errorf("tls alone: %+v, %v", got.tls, err)
	}
	for text, want := range map[string]string{
		"auth alice": "a user and a password", "auth": "a user and a password", "auth a b c": "a user and a password",
		"tls x": "one too many", "tls {\nca x\n}": "ca_file, cert, insecure_skip_verify, key, server_name",
	} {
		if err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

func TestTLS(t *testing.T) {
	var none *options.TLS
	if cfg, err := none.Config(); cfg != nil || err != nil {
		t.Errorf("no TLS is %v, %v", cfg, err)
	}
	notPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]options.TLS{
		"no such file":    {CAFile: "/no/such/file"},
		"no certificate":  {CAFile: notPEM},
		"belong together": {Cert: "x"},
		"cert and key":    {Cert: "x", Key: "y"},
	} {
		if _, err := o.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q in it", o, err, want)
		}
	}
	if cfg, err := (&options.TLS{ServerName: "a"}).Config(); err != nil || cfg.ServerName != "a" || cfg.InsecureSkipVerify {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

func TestAuth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPTIONS_TEST_USER", "alice")
	user, password, err := (&options.Auth{User: "{env.OPTIONS_TEST_USER}", Password: "{file." + file + "}"}).Resolve()
	if user != "alice" || password != "s3cret" || err != nil {
		t.Errorf("got %q, %q, %v", user, password, err)
	}
	for _, a := range []options.Auth{
		{User: "alice"}, {Password: "x"}, {User: "{env.OPTIONS_TEST_NOT_SET}", Password: "x"}, {User: "alice", Password: "{file./no/such}"},
	} {
		if _, _, err := a.Resolve(); err == nil {
			t.Errorf("%+v is no error", a)
		}
	}
	var none *options.Auth
	if user, password, err = none.Resolve(); user != "" || password != "" || err != nil {
		t.Errorf("no auth is %q, %q, %v", user, password, err)
	}
}

func TestPlaceholders(t *testing.T) {
	t.Setenv("OPTIONS_TEST_HOSTS", "b:2, c:3")
	all, err := options.Addresses([]string{"a:1", "{env.OPTIONS_TEST_HOSTS}"})
	if err != nil || !slices.Equal(all, []string{"a:1", "b:2", "c:3"}) {
		t.Errorf("got %q, %v", all, err)
	}
	for _, bad := range []string{"", "a:1,", "{env.OPTIONS_TEST_NOT_SET}"} {
		if all, err := options.Addresses([]string{bad}); err == nil {
			t.Errorf("%q is %q", bad, all)
		}
	}
	text, request := "{env.OPTIONS_TEST_HOSTS}", "x-{http.request.header.A}"
	options.Global(&text, &request)
	if text != "b:2, c:3" || request != "x-{http.request.header.A}" {
		t.Errorf("got %q and %q", text, request)
	}
	if options.Dynamic(text) || !options.Dynamic(text, request) {
		t.Error("only what requests decide is dynamic")
	}
}
