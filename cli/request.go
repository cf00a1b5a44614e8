package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// client is what publish and tail have in common: where to, as whom, and with which
// headers.
type client struct {
	headers                   []string
	apiKey, apiKeyFile        string
	apiKeyHeader              string
	token, tokenFile, rootsCA string

	url    *url.URL
	header http.Header
	tls    *tls.Config
	http   *http.Client
}

// The environment variables that credentials may come by.
const (
	envAPIKey = "MESSAGE_API_KEY"
	envToken  = "MESSAGE_API_TOKEN" //nolint:gosec // the name of a variable
)

func (c *client) flags(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&c.headers, "header", "H", nil, "A header of the request, as 'Name: value'; may stand several times")
	flags.StringVar(&c.apiKey, "api-key", "", "API key; better by --api-key-file or the environment variable "+envAPIKey)
	flags.StringVar(&c.apiKeyFile, "api-key-file", "", "File that holds the API key")
	flags.StringVar(&c.apiKeyHeader, "api-key-header", "X-Gravitee-Api-Key", "Header in which the API key is sent")
	flags.StringVar(&c.token, "token", "", "Bearer token; better by --token-file or the environment variable "+envToken)
	flags.StringVar(&c.tokenFile, "token-file", "", "File that holds the bearer token")
	flags.StringVar(&c.rootsCA, "ca-file", "", "File with root certificates (PEM) to trust instead of the system's")
}

// prepare turns the flags into what requests are made of.
func (c *client) prepare(address string, getenv func(string) string) error {
	var err error
	if c.url, err = parseURL(address); err != nil {
		return err
	}
	c.header = make(http.Header)
	for _, line := range c.headers {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return errors.New("--header takes 'Name: value'") // it may hold a secret, so it is not repeated
		}
		c.header.Add(name, strings.TrimSpace(value))
	}
	if err := c.authenticate(getenv); err != nil {
		return err
	}
	if c.rootsCA != "" {
		pool, err := roots(c.rootsCA)
		if err != nil {
			return err
		}
		c.tls = &tls.Config{RootCAs: pool}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = c.tls
	c.http = &http.Client{
		Transport: transport,
		// A credential is for the server that was named, and a POST must not turn into a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// close lets go of idle connections.
func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// parseURL reads the URL of a message API. As with curl the scheme may be left out.
func parseURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, whose query can hold a credential
		}
		return nil, fmt.Errorf("the URL can't be read: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("%s is no URL of a message API: it begins with http:// or https://", withoutQuery(text))
	}
	if u.Host == "" {
		return nil, errors.New("the URL names no host")
	}
	u.Fragment = ""
	return u, nil
}

// authenticate sets the credential. What stands on the command line wins over the
// environment, and two of them are one too many: the gateway would refuse them.
func (c *client) authenticate(getenv func(string) string) error {
	key, err := secret("api-key", c.apiKey, c.apiKeyFile)
	if err != nil {
		return err
	}
	token, err := secret("token", c.token, c.tokenFile)
	if err != nil {
		return err
	}
	from := "--api-key and --token"
	if key == "" && token == "" {
		key, token = getenv(envAPIKey), getenv(envToken)
		from = envAPIKey + " and " + envToken
	}
	switch {
	case key != "" && token != "":
		return fmt.Errorf("%s are two credentials: give one of them", from)
	case !visible(key) || !visible(token):
		return errors.New("the credential has characters that no header can carry: check where it comes from")
	case key != "":
		c.header.Set(c.apiKeyHeader, key)
	case token != "":
		c.header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// maxSecret bounds files with a credential, of which a token is the longest.
const maxSecret = 64 << 10

// secret is what a flag, or the file that another one names, says.
func secret(flag, value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	if value != "" {
		return "", fmt.Errorf("--%s and --%s-file: give one of them", flag, flag)
	}
	return readCredential("--"+flag+"-file", file)
}

// readCredential reads a file with nothing but a credential in it, which flag has named.
func readCredential(flag, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	value := strings.TrimSpace(string(raw))
	if value == "" || len(raw) > maxSecret {
		return "", fmt.Errorf("%s: %s holds no credential", flag, file)
	}
	return value, nil
}

func visible(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return true
}
