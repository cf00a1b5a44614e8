package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxDocument    = 1 << 20 // bytes, decompressed
	defaultRefresh = 10 * time.Minute
	leastRefresh   = time.Minute
	mostRefresh    = 24 * time.Hour
	wellKnown      = "/.well-known/openid-configuration"
)

// resolveSource finds out where the keys are to be fetched.
func (j *JWT) resolveSource() (id sourceID, err error) {
	name, text := "jwks_url", j.JWKSURL
	if j.Discovery != "" {
		name, text, id.discovery = "discovery", j.Discovery, true
	}
	id.allowHTTP = j.AllowHTTP
	if id.url, err = resolved(text); err == nil {
		err = checkURL(id.url, id.allowHTTP)
	}
	if err != nil {
		return id, fmt.Errorf("%s: %w", name, err)
	}
	if j.CAFile == "" {
		return id, nil
	}
	pem, err := os.ReadFile(j.CAFile)
	if err != nil {
		return id, fmt.Errorf("ca_file: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return id, fmt.Errorf("ca_file: %s holds no certificate in PEM form", j.CAFile)
	}
	id.ca = string(pem)
	return id, nil
}

func checkURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("that is no URL: write https://<host>/<path>") // err has all of it
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q is no URL for keys: write https://<host>/<path>, without user and fragment", u.Redacted())
	case u.Scheme == "http" && !allowHTTP:
		return fmt.Errorf("%q is not encrypted: who can change the keys on the way can let in anybody; use https, or allow_http for experiments", u.Redacted())
	}
	return nil
}

// newClient makes a client that keeps no connection: it is used every few minutes.
func newClient(ca string) (*http.Client, error) {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if ca != "" {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("ca_file holds no certificate in PEM form")
		}
	}
	return &http.Client{
		Transport: t,
		// Who may redirect is not always who may say which keys are good.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// fetch gets the key set, and how long it is fresh.
func (s *source) fetch(ctx context.Context) (body []byte, fresh time.Duration, err error) {
	from := s.id.url
	if s.id.discovery {
		if from, err = s.discover(ctx); err != nil {
			return nil, 0, err
		}
	}
	body, header, err := s.get(ctx, from)
	if err != nil {
		return nil, 0, err
	}
	return body, freshness(header), nil
}

// discover asks the issuer where its keys are (OpenID Connect Discovery 1.0 §4).
func (s *source) discover(ctx context.Context) (string, error) {
	body, _, err := s.get(ctx, strings.TrimSuffix(s.id.url, "/")+wellKnown)
	if err != nil {
		return "", err
	}
	var document struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return "", fmt.Errorf("the issuer's configuration is not understood: %w", err)
	}
	if document.Issuer != s.id.url {
		return "", fmt.Errorf("the issuer calls itself %.200q, and discovery says %q: they must be the same, to the last slash", document.Issuer, s.id.url)
	}
	if err := checkURL(document.Keys, s.id.allowHTTP); err != nil {
		return "", fmt.Errorf("jwks_uri in the issuer's configuration: %w", err)
	}
	return document.Keys, nil
}

// get fetches one document, within its time and size.
func (s *source) get(ctx context.Context, from string) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "caddy-message-api")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, nil, fmt.Errorf("%s answers with a redirect to %.200q, which is not followed: give the final URL", req.URL.Redacted(), res.Header.Get("Location"))
	case res.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("%s answers %s", req.URL.Redacted(), res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err == nil {
		err = ctx.Err() // what a server hurries to end when we hang up may look whole
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", req.URL.Redacted(), err)
	}
	if len(body) > maxDocument {
		return nil, nil, fmt.Errorf("%s answers with more than 1 MiB", req.URL.Redacted())
	}
	return body, res.Header, nil
}

// freshness is how long an answer is good, as its Cache-Control says, within bounds.
func freshness(header http.Header) time.Duration {
	fresh := defaultRefresh
	for _, value := range header.Values("Cache-Control") {
		for directive := range strings.SplitSeq(value, ",") {
			name, argument, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return leastRefresh
			case "max-age":
				seconds, err := strconv.ParseInt(strings.Trim(argument, `"`), 10, 32)
				if err == nil {
					fresh = time.Duration(seconds) * time.Second
				}
			}
		}
	}
	return min(max(fresh, leastRefresh), mostRefresh)
}
