package smftest

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// Fields of a login and its answer.
const (
	fieldMask        = 0x7f
	fieldVersion     = 0x00
	fieldDate        = 0x01
	fieldPlatform    = 0x02
	fieldClient      = 0x05
	fieldVPN         = 0x06
	fieldInbox       = 0x08
	fieldCan         = 0x09
	fieldVirtual     = 0x0a
	fieldRouter      = 0x0c
	fieldScheme      = 0x11
	fieldExtended    = 0x13
	schemeBasic      = 0x00
	schemeClientCert = 0x01
	schemeOAuth      = 0x0a
	fieldHead        = 5
	loginHead        = 6
)

// router is what the broker calls itself.
const router = "smftest"

// MaxPayload is the largest guaranteed and direct message, in bytes, that the broker
// tells its clients to send.
const MaxPayload = 10 << 20

// login takes in a login and answers it, or an update of one, which changes nothing.
func (c *conn) login(f frame) error {
	fields, kind, err := loginFields(f.body)
	if err != nil {
		return err
	}
	if kind != 0 || c.name != "" {
		return nil
	}
	user, password, err := credentials(f.params)
	if err != nil {
		return err
	}
	if fields.scheme == schemeClientCert {
		user = c.commonName()
	}
	fault, err := c.fault(OpLogin, user)
	if err != nil || fault.Silent {
		return err
	}
	answer := fault.status()
	if answer.ok() {
		answer = c.s.admits(fields, user, password)
	}
	if !answer.ok() {
		c.write(func(b []byte) []byte { return appendControl(b, protoClient, nil, answer, nil) })
		c.cutAfterWriting()
		return nil
	}
	name := fields.client
	if name == "" {
		name = user + "/" + c.net.RemoteAddr().String()
	}
	c.s.welcome(c, name)
	newest := byte(maxAssured)
	if c.s.options.old {
		newest = wordsAssured
	}
	body := loginAnswer(name, c.s.vpn(), newest)
	return c.answer(fault, func(b []byte) []byte { return appendControl(b, protoClient, nil, statusOK, body) })
}

// loginRequest is what interests us of a login.
type loginRequest struct {
	client, vpn string
	scheme      byte
}

func loginFields(b []byte) (r loginRequest, kind byte, err error) {
	if len(b) < loginHead || number(b[2:6]) != uint64(len(b)) {
		return r, 0, fmt.Errorf("%w: login of %d bytes", errMalformed, len(b))
	}
	kind, b = b[1], b[loginHead:]
	for len(b) > 0 {
		if len(b) < fieldHead {
			return r, kind, fmt.Errorf("%w: login field is cut short", errMalformed)
		}
		size := number(b[1:fieldHead])
		if size < fieldHead || size > uint64(len(b)) {
			return r, kind, fmt.Errorf("%w: login field of %d bytes", errMalformed, size)
		}
		value := b[fieldHead:size]
		switch b[0] & fieldMask {
		case fieldClient:
			r.client = text(value)
		case fieldVPN:
			r.vpn = text(value)
		case fieldScheme:
			r.scheme = byte(number(value))
		}
		b = b[size:]
	}
	return r, kind, nil
}

func credentials(params []byte) (user, password string, err error) {
	for rest := params; ; {
		var p param
		if p, rest, err = nextParam(rest); err != nil || p.raw == nil {
			return user, password, err
		}
		if p.light || p.kind != paramUser && p.kind != paramPassword {
			continue
		}
		value, err := base64.StdEncoding.DecodeString(text(p.value))
		if err != nil {
			return user, password, fmt.Errorf("%w: credentials: %w", errMalformed, err)
		}
		if p.kind == paramUser {
			user = string(value)
		} else {
			password = string(value)
		}
	}
}

// commonName is that of the client's verified certificate.
func (c *conn) commonName() string {
	t, isTLS := c.net.(*tls.Conn)
	if !isTLS {
		return ""
	}
	for _, chain := range t.ConnectionState().VerifiedChains {
		return chain[0].Subject.CommonName
	}
	return ""
}

// admits decides on a login.
func (s *Server) admits(r loginRequest, user, password string) status {
	if r.vpn != "" && r.vpn != s.vpn() {
		return status{403, "Message VPN Not Allowed"}
	}
	unauthorized := status{401, "Unauthorized"}
	known, isKnown := s.options.Users[user]
	anybody := s.options.Users == nil
	switch r.scheme {
	case schemeBasic:
		if !anybody && (!isKnown || known != password) {
			return unauthorized
		}
	case schemeClientCert:
		if user == "" || !anybody && !isKnown {
			return unauthorized
		}
	default:
		if !anybody {
			return unauthorized
		}
	}
	return statusOK
}

// loginAnswer is what we tell of ourselves. Nothing of it matters to the client library
// but the capabilities, where its inbox is, and which control messages we understand.
func loginAnswer(client, vpn string, newest byte) []byte {
	b := []byte{1, 0, 0, 0, 0, 0}
	b = appendField(b, fieldVersion, "10.8.1.0\x00")
	b = appendField(b, fieldDate, "Jan 01 2026 00:00\x00")
	b = appendField(b, fieldPlatform, "smftest\x00")
	b = appendField(b, fieldClient, client+"\x00")
	b = appendField(b, fieldVPN, vpn+"\x00")
	b = appendField(b, fieldInbox, inboxPrefix+client+"\x00")
	b = appendField(b, fieldCan, string(capabilities()))
	b = appendField(b, fieldVirtual, "v:"+router+"\x00")
	b = appendField(b, fieldRouter, router+"\x00")
	if newest > wordsAssured {
		b = appendField(b, fieldExtended, string(appendField([]byte{0}, 4, string([]byte{minAssured, newest}))))
	}
	binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
	return b
}

// inboxPrefix begins the topic by which one client can be reached.
const inboxPrefix = "#P2P/v:" + router + "/"

func appendField(b []byte, kind byte, value string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(fieldHead+len(value)))
	return append(b, value...)
}

// capabilities are bits, and a few numbers: guaranteed publishing and consuming, queues
// and their management, active flow indication, shared subscriptions, outcomes. The bits
// were found by what the client library refuses to do without them.
func capabilities() []byte {
	size := binary.BigEndian.AppendUint32(nil, MaxPayload)
	b := []byte{27, 0x3f, 0xfb, 0x4b, 0xe0}
	b = appendField(b, 0, "\x00\x00\x03\xe8")
	b = appendField(b, 1, "\x00")
	b = appendField(b, 2, string(size))
	return appendField(b, 3, string(size))
}

// appendControl appends a control frame: the answer to a tagged question, or without tag.
func appendControl(b []byte, proto byte, tag []byte, answer status, body []byte) []byte {
	start := len(b)
	b = beginFrame(b, 0, proto, 0, 1)
	if len(tag) > 0 {
		b = append(append(b, lightweight|lightTag<<2|byte(len(tag))), tag...)
	}
	if answer.code != 0 {
		b = answer.append(b)
	}
	endHeader(b, start)
	b = append(b, body...)
	endFrame(b, start)
	return b
}

// tagOf is the tag that the answer must have.
func tagOf(params []byte) ([]byte, error) {
	for rest := params; ; {
		p, after, err := nextParam(rest)
		if err != nil || p.raw == nil {
			return nil, err
		}
		if p.light && p.kind == lightTag {
			return p.value, nil
		}
		rest = after
	}
}
