package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// consumerFlags say where and how messages are delivered, for plans that push.
type consumerFlags struct {
	consumer         string
	callback         string
	secrets, headers []string
	rotate           bool
	// quiet prints the new secret alone.
	quiet bool
}

func (c *consumerFlags) flags(flags *pflag.FlagSet) {
	flags.StringVar(&c.consumer, "consumer", "", "Where and how to deliver, for a plan that pushes: a file with a JSON object, - for the standard input, or the object itself")
	flags.StringVar(&c.callback, "callback", "", "The URL to deliver to")
	flags.StringArrayVar(&c.secrets, "secret", nil, "What deliveries are signed with, whsec_...; better @<file>, which holds it. May stand twice, the first one first")
	flags.StringArrayVar(&c.headers, "header", nil, "A header of every delivery, as 'Name: value'; may stand several times")
}

// updateFlags are those with which there must be something already.
func (c *consumerFlags) updateFlags(flags *pflag.FlagSet) {
	c.flags(flags)
	flags.BoolVar(&c.rotate, "rotate-secret", false, "Sign with a new secret too, beside the one that there is: the new one is printed this once")
	flags.BoolVarP(&c.quiet, "quiet", "q", false, "With --rotate-secret: print the new secret alone")
}

func (c *consumerFlags) given(flags *pflag.FlagSet) bool {
	return slices.ContainsFunc([]string{"consumer", "callback", "secret", "header", "rotate-secret"}, flags.Changed)
}

// object puts together what the flags say. What has a flag of its own stands in the place of
// what --consumer says of it.
func (c *consumerFlags) object(cmd *cobra.Command) (map[string]any, error) {
	members := map[string]any{}
	if cmd.Flags().Changed("consumer") {
		var err error
		if members, err = readConsumer(c.consumer, cmd.InOrStdin()); err != nil {
			return nil, err
		}
	}
	if cmd.Flags().Changed("callback") {
		members["callback"] = c.callback
	}
	if c.secrets != nil {
		if c.rotate {
			return nil, errors.New("--secret and --rotate-secret: give one of them")
		}
		var secrets []string
		for _, text := range c.secrets {
			text, err := atFile("secret", text)
			if err != nil {
				return nil, err
			}
			secrets = append(secrets, text)
		}
		members["secrets"] = secrets
	}
	if c.headers != nil {
		headers, err := c.headerMap()
		if err != nil {
			return nil, err
		}
		members["headers"] = headers
	}
	return members, nil
}

// headerMap has null for what is to be taken away.
func (c *consumerFlags) headerMap() (map[string]any, error) {
	headers := map[string]any{}
	for _, line := range c.headers {
		name, value, ok := strings.Cut(line, ":")
		if name, value = strings.TrimSpace(name), strings.TrimSpace(value); !ok || name == "" {
			return nil, errors.New("--header takes 'Name: value'") // it may hold a secret, so it is not repeated
		}
		if value == "" {
			headers[name] = nil
			continue
		}
		list, _ := headers[name].([]string)
		headers[name] = append(list, value)
	}
	return headers, nil
}

// readConsumer reads the object itself, or the file that is named.
func readConsumer(given string, stdin io.Reader) (map[string]any, error) {
	name, text := "--consumer", []byte(given)
	if !strings.HasPrefix(strings.TrimSpace(given), "{") {
		var err error
		if name, text, err = readDefinition(given, stdin); err != nil {
			return nil, fmt.Errorf("--consumer: %w", err)
		}
	}
	members := map[string]any{}
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	if err := in.Decode(&members); err != nil {
		return nil, fmt.Errorf("%s is no JSON object: %w", name, err)
	}
	if _, err := in.Token(); err != io.EOF || members == nil {
		return nil, fmt.Errorf("%s must be one JSON object, and nothing else", name)
	}
	return members, nil
}

// atFile is the value of a flag, or what is in the file that it names after an @.
func atFile(flag, text string) (string, error) {
	file, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		return text, nil
	}
	return readCredential("--"+flag, file)
}

// forCreate is the consumer of a new subscription; nil if nothing is said of it.
func (c *consumerFlags) forCreate(cmd *cobra.Command) (json.RawMessage, error) {
	if !c.given(cmd.Flags()) {
		return nil, nil
	}
	members, err := c.object(cmd)
	if err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

// patch is what to change of a consumer, and the secret that was made for it.
func (c *consumerFlags) patch(cmd *cobra.Command, now json.RawMessage) (p admin.Optional[json.RawMessage], secret string, err error) {
	if c.quiet && !c.rotate {
		return p, "", errors.New("--quiet prints a new secret: it goes with --rotate-secret")
	}
	if !c.given(cmd.Flags()) {
		return p, "", nil
	}
	members, err := c.object(cmd)
	if err != nil {
		return p, "", err
	}
	if c.rotate {
		if members["secrets"], secret, err = rotated(now); err != nil {
			return p, "", err
		}
	}
	raw, err := json.Marshal(members)
	return admin.Some(json.RawMessage(raw)), secret, err
}

// rotated puts a new secret before the first of those that there are, which is known by the
// hint that is shown of it.
func rotated(now json.RawMessage) (secrets []any, secret string, err error) {
	var shown struct {
		Secrets []json.RawMessage `json:"secrets"`
	}
	if len(now) == 0 {
		return nil, "", errors.New("--rotate-secret: nothing is delivered for this subscription: its plan does not push")
	}
	if err := json.Unmarshal(now, &shown); err != nil {
		return nil, "", fmt.Errorf("--rotate-secret: the secrets of the subscription can't be read: %w", err)
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // it never fails
	secret = "whsec_" + base64.StdEncoding.EncodeToString(random[:])
	secrets = append(secrets, secret)
	if len(shown.Secrets) > 0 {
		secrets = append(secrets, shown.Secrets[0])
	}
	return secrets, secret, nil
}

// addConsumer adds where and how messages are delivered, and what is proposed in its place.
func (t *tool) addConsumer(d *details, s admin.Subscription) {
	for _, row := range consumerRows(s.Consumer) {
		d.add("Consumer", row)
	}
	if p := s.Proposed; p != nil {
		d.add("Proposed", t.whenBy(p.At, p.By))
		for _, row := range consumerRows(p.Consumer) {
			d.add("Proposed", row)
		}
	}
}

// consumerRows are the members of a consumer, like name=value.
func consumerRows(raw json.RawMessage) []string {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return nil
	}
	var rows []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var text string
		if json.Unmarshal(members[name], &text) != nil {
			text = string(members[name])
		}
		rows = append(rows, name+"="+text)
	}
	return rows
}

// secretsOf are the secrets of a consumer as it is shown when it is made; none at any other
// time.
func secretsOf(raw json.RawMessage) (secrets []string) {
	var made struct {
		Secrets []any `json:"secrets"`
	}
	if json.Unmarshal(raw, &made) != nil {
		return nil
	}
	for _, one := range made.Secrets {
		if text, ok := one.(string); ok {
			secrets = append(secrets, text)
		}
	}
	return secrets
}

// showUpdated prints a subscription that was changed, and the secret that was made for it, or
// that alone.
func (t *tool) showUpdated(cmd *cobra.Command, s admin.Subscription, secret string, quiet bool) error {
	switch {
	case secret == "":
		return t.showSubscription(cmd, s)
	case quiet:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), secret)
		return err
	case t.json:
		return show(cmd.OutOrStdout(), struct {
			admin.Subscription
			NewSecret string `json:"new_secret"`
		}{s, secret})
	}
	if err := t.showSubscription(cmd, s); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), "\nNew secret:", secret); err != nil {
		return err
	}
	return onceOnly(cmd, "secret")
}
