package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// adminFlags say where the admin endpoint is, and as whom to come.
type adminFlags struct {
	address, config, adapter     string
	rootsCA, clientCert, certKey string
}

// group makes a command with others below it that all speak to the admin endpoint.
func (t *tool) group(name, short string, commands ...func(*adminFlags) *cobra.Command) *cobra.Command {
	a := new(adminFlags)
	cmd := &cobra.Command{Use: name + " <command>", Short: short}
	a.flags(cmd)
	asGroup(cmd)
	for _, c := range commands {
		cmd.AddCommand(c(a))
	}
	return cmd
}

func (a *adminFlags) flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.address, "address", "", "Address of the admin endpoint, like localhost:2019, https://host:2021 or unix//run/caddy/admin.sock")
	flags.StringVarP(&a.config, "config", "c", "", "Configuration file in which the address of the admin endpoint is looked up")
	flags.StringVarP(&a.adapter, "adapter", "a", "", "Config adapter for the files that are not JSON")
	flags.StringVar(&a.rootsCA, "ca-file", "", "With https://: file with root certificates (PEM) to trust instead of the system's")
	flags.StringVar(&a.clientCert, "client-cert", "", "With https://: file with the client's certificate (PEM)")
	flags.StringVar(&a.certKey, "client-key", "", "With https://: file with the certificate's key (PEM)")
}

// client finds the admin endpoint. The caller closes it.
func (a *adminFlags) client() (*admin.Client, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
	if err != nil {
		return nil, fmt.Errorf("finding the address of the admin endpoint: %w", err)
	}
	c := &admin.Client{Base: address}
	if a.rootsCA == "" && a.clientCert == "" && a.certKey == "" {
		return c, nil
	}
	if !strings.HasPrefix(address, "https://") {
		return nil, fmt.Errorf("certificates are for an address that begins with https://, and %s does not", address)
	}
	cfg, err := a.tls()
	if err != nil {
		return nil, err
	}
	c.HTTP = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func (a *adminFlags) tls() (*tls.Config, error) {
	cfg := new(tls.Config)
	var err error
	if a.rootsCA != "" {
		if cfg.RootCAs, err = roots(a.rootsCA); err != nil {
			return nil, err
		}
	}
	if (a.clientCert == "") != (a.certKey == "") {
		return nil, errors.New("--client-cert and --client-key belong together")
	}
	if a.clientCert != "" {
		cert, err := tls.LoadX509KeyPair(a.clientCert, a.certKey)
		if err != nil {
			return nil, fmt.Errorf("--client-cert: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg, nil
}

// roots reads certificates to trust.
func roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file: %s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// adminRun is a command that speaks to the admin endpoint.
type adminRun func(ctx context.Context, c *admin.Client, cmd *cobra.Command, args []string) error

// admin makes such a command.
func (t *tool) admin(a *adminFlags, use, short, long string, run adminRun) *cobra.Command {
	return command(use, short, long, func(ctx context.Context, cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errSlowAdmin)
		defer cancel()
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		err = run(ctx, c, cmd, args)
		if err != nil && errors.Is(context.Cause(ctx), errSlowAdmin) {
			return fmt.Errorf("%w (%s); whether it was done shows only by looking", errSlowAdmin, t.timeout)
		}
		return err
	})
}

var errSlowAdmin = errors.New("the admin endpoint did not answer within --timeout")

// writeFlags are the options that writes have.
type writeFlags struct{ ifMatch, reason string }

func (w *writeFlags) flags(cmd *cobra.Command, withReason bool) {
	cmd.Flags().StringVar(&w.ifMatch, "if-match", "", "Change it only if it still has this ETag")
	if withReason {
		w.reasonFlag(cmd)
	}
}

func (w *writeFlags) reasonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.reason, "reason", "", "Why; kept where there is a place for it, and in the audit log")
}

func (w *writeFlags) write() admin.Write {
	return admin.Write{IfMatch: etag(w.ifMatch), Reason: w.reason}
}

// etag puts the quotes around a version that shells take away so easily.
func etag(text string) string {
	if text == "" || text == "*" || strings.ContainsRune(text, '"') {
		return text
	}
	return `"` + text + `"`
}

// version is an ETag without its quotes.
func version(etag string) string { return strings.Trim(etag, `"`) }

// parseTime reads a time as people write it: RFC 3339, a day, or how long from now.
func (t *tool) parseTime(flag, text string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at, nil
	}
	var in time.Duration
	days, isDays := strings.CutSuffix(text, "d")
	if n, err := strconv.Atoi(days); isDays && err == nil && n >= 0 && n <= 36500 {
		in = time.Duration(n) * 24 * time.Hour
	} else if in, err = time.ParseDuration(text); err != nil || in < 0 {
		return time.Time{}, fmt.Errorf("%s %q: write a time like 2026-12-31T23:00:00Z, a day (UTC) like 2026-12-31, or how long from now, like 90d or 12h", flag, text)
	}
	return t.now().UTC().Add(in + time.Second - 1).Truncate(time.Second), nil // the next full second
}

// timeFlag reads the time of a flag, or none if it is not given.
func (t *tool) timeFlag(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return t.parseTime("--"+flag, text)
}

// none is how a flag of an update takes a value away.
const none = "none"
