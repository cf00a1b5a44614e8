package endpointtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// payloads are contents that have been damaged somewhere before.
func payloads() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	large := bytes.Repeat(all, 200<<10/len(all))
	return map[string][]byte{
		"empty":           {},
		"one NUL":         {0},
		"every byte":      all,
		"200 KiB":         large,
		"UTF-8":           []byte("Größe 漢字 🙂 \u2028\u2029"),
		"not UTF-8":       {0xff, 0xfe, 0xc3, 0x28, 0xed, 0xa0, 0x80},
		"line ends":       []byte("a\nb\r\nc\rd\n\n"),
		"white space":     []byte(" \t leading and trailing \t "),
		"looks like JSON": []byte(`{"a":[1,2.50,"\u0000"]}`),
	}
}

// payloadOut: what is published arrives bit for bit.
func payloadOut(s *subject) {
	for name, payload := range payloads() {
		if s.caps.MaxPayload > 0 && len(payload) > s.caps.MaxPayload {
			continue
		}
		s.wantStatus(s.publish(message.Auto, &message.Message{Payload: payload}), message.Stored)
		s.samePayload(name, s.Consume(s.T, 1)[0], payload)
	}
}

// payloadIn: what others publish arrives bit for bit.
func payloadIn(s *subject) {
	r := s.open(s.usual("reader"))
	for name, payload := range payloads() {
		s.Produce(s.T, &message.Message{Payload: payload})
		s.samePayload(name, r.takeAll(1)[0].Message, payload)
	}
}

func (s *subject) samePayload(name string, got *message.Message, want []byte) {
	s.Helper()
	if !bytes.Equal(got.Payload, want) {
		s.Errorf("payload %q came as %d bytes %.80q, want %d bytes %.80q", name, len(got.Payload), got.Payload, len(want), want)
	}
}

var keySamples = [][]byte{[]byte("order-7"), {0, 0xff, 0xfe, '\n'}, []byte("Straße/漢字"), bytes.Repeat([]byte("k"), 200)}

// keyOut: keys arrive bit for bit, and the absence of a key too.
func keyOut(s *subject) {
	for _, key := range append(keySamples, nil) {
		s.wantStatus(s.publish(message.Auto, &message.Message{Key: key, Payload: []byte("x")}), message.Stored)
		s.sameKey(s.Consume(s.T, 1)[0], key)
	}
}

// keyIn: the keys of others arrive bit for bit.
func keyIn(s *subject) {
	r := s.open(s.usual("reader"))
	for _, key := range append(keySamples, nil) {
		s.Produce(s.T, &message.Message{Key: key, Payload: []byte("x")})
		s.sameKey(r.takeAll(1)[0].Message, key)
	}
}

func (s *subject) sameKey(got *message.Message, want []byte) {
	s.Helper()
	if !bytes.Equal(got.Key, want) || (got.Key == nil) != (want == nil) {
		s.Errorf("key %q came as %q", want, got.Key)
	}
}

// headerSamples are headers as far as the harness says that the broker keeps them.
func (s *subject) headerSamples() []message.Header {
	h := []message.Header{
		{Name: "trace-id", Value: "4bf92f3577b34da6"},
		{Name: "Content-Type", Value: "application/json; charset=utf-8"},
		{Name: "content-type", Value: "names are told apart by case"},
		{Name: "empty", Value: ""},
		{Name: "text", Value: "Größe 漢字 🙂"},
		{Name: "long", Value: strings.Repeat("v", 2000)},
	}
	if s.HeaderOrder {
		h = append(h, message.Header{Name: "trace-id", Value: "again"}, message.Header{Name: "a", Value: "last"})
	}
	if s.BinaryHeaders {
		h = append(h, message.Header{Name: "binary", Value: "\x00\xff\xfe\r\n\x80"})
	}
	return h
}

// headersOut: headers arrive with their values, names, and order as far as the broker
// has any.
func headersOut(s *subject) {
	want := s.headerSamples()
	s.wantStatus(s.publish(message.Auto, &message.Message{Payload: []byte("x"), Headers: want}), message.Stored)
	s.sameHeaders(s.Consume(s.T, 1)[0].Headers, want)
}

// headersIn: the headers of others arrive likewise, and a message without headers has
// none.
func headersIn(s *subject) {
	r := s.open(s.usual("reader"))
	want := s.headerSamples()
	s.Produce(s.T, &message.Message{Payload: []byte("x"), Headers: want})
	s.sameHeaders(r.takeAll(1)[0].Headers, want)
	s.Produce(s.T, &message.Message{Payload: []byte("x")})
	s.sameHeaders(r.takeAll(1)[0].Headers, nil)
}

func (s *subject) sameHeaders(got, want []message.Header) {
	s.Helper()
	if !s.HeaderOrder {
		got, want = sorted(got), sorted(want)
	}
	if len(got) != len(want) || !slices.Equal(got, want) {
		s.Errorf("headers came as %s, want %s", printed(got), printed(want))
	}
}

func sorted(h []message.Header) []message.Header {
	h = slices.Clone(h)
	slices.SortFunc(h, func(a, b message.Header) int { return strings.Compare(a.Name, b.Name) })
	return h
}

func printed(h []message.Header) string { return fmt.Sprintf("%.400q", fmt.Sprint(h)) }
