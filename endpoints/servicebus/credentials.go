package servicebus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// clientFunc makes a client of the library, which talks to nobody yet.
type clientFunc func(*azservicebus.ClientOptions) (*azservicebus.Client, error)

// credentials resolves who we are, and for which namespace.
func (s *ServiceBus) credentials(cfg *connConfig) error {
	if s.Namespace != "" {
		if err := checkNamespace(s.Namespace); err != nil {
			return err
		}
		cfg.host = s.Namespace
		credential := new(defaultCredential)
		cfg.client = func(o *azservicebus.ClientOptions) (*azservicebus.Client, error) {
			return azservicebus.NewClient(s.Namespace, credential, o)
		}
		return nil
	}
	text, err := options.Secret(s.ConnectionString)
	if err != nil {
		return fmt.Errorf("connection_string: %w", err)
	}
	if cfg.host, cfg.plain, err = parseConnectionString(text); err != nil {
		return fmt.Errorf("connection_string: %w", err)
	}
	cfg.client = func(o *azservicebus.ClientOptions) (*azservicebus.Client, error) {
		return azservicebus.NewClientFromConnectionString(text, o)
	}
	// The library has checks of its own. It does not quote the string.
	if _, err := cfg.client(nil); err != nil {
		return fmt.Errorf("connection_string: %w", err)
	}
	return nil
}

func checkNamespace(host string) error {
	if strings.ContainsAny(host, "/;= ") || !strings.Contains(host, ".") {
		return fmt.Errorf("namespace %q is no host name: write it like <name>.servicebus.windows.net", host)
	}
	return nil
}

// parseConnectionString finds the host, perhaps with a port, and whether it is the emulator,
// which knows no encryption. Errors do not quote the string: it is a secret.
func parseConnectionString(text string) (host string, plain bool, err error) {
	const form = "write it like Endpoint=sb://<name>.servicebus.windows.net/;SharedAccessKeyName=<name>;SharedAccessKey=<key>"
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		switch {
		case strings.EqualFold(name, "Endpoint"):
			u, err := url.Parse(value)
			if err != nil || u.Host == "" {
				return "", false, errors.New("its Endpoint is no address: " + form)
			}
			host = u.Host
		case strings.EqualFold(name, "UseDevelopmentEmulator"):
			if plain, err = strconv.ParseBool(value); err != nil {
				return "", false, errors.New("UseDevelopmentEmulator is true or false")
			}
		}
	}
	if host == "" {
		return "", false, errors.New("it has no Endpoint: " + form)
	}
	return host, plain, nil
}

// defaultCredential is Azure's default credential chain, looked for when it is first needed
// and never waited for longer than clients wait for us.
type defaultCredential struct {
	once  sync.Once
	chain azcore.TokenCredential
	err   error
}

// GetToken implements azcore.TokenCredential.
func (d *defaultCredential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	d.once.Do(func() { d.chain, d.err = azidentity.NewDefaultAzureCredential(nil) })
	if d.err != nil {
		return azcore.AccessToken{}, &loginError{d.err}
	}
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	token, err := d.chain.GetToken(ctx, o)
	if err != nil {
		return token, &loginError{err}
	}
	return token, nil
}

// loginError says that no token was to be had, which the library shall not try to mend.
type loginError struct{ cause error }

// NonRetriable is how the library knows.
func (*loginError) NonRetriable() {}

// Error tells the cause in one line: the chain lists every attempt in many.
func (e *loginError) Error() string {
	const most = 400
	text := strings.Join(strings.Fields(e.cause.Error()), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return "no token from Azure's default credential chain: " + text
}

func (e *loginError) Unwrap() error { return e.cause }

var _ azcore.TokenCredential = (*defaultCredential)(nil)
