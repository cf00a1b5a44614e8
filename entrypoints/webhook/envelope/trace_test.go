package envelope

import (
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
)

func TestTraceGoesOn(t *testing.T) {
	for _, c := range []struct{ name, parent, flags string }{
		{"sampled", "00-" + traceID + "-" + parentID + "-01", "01"},
		{"not sampled", "00-" + traceID + "-" + parentID + "-00", "00"},
		{"random trace id", "00-" + traceID + "-" + parentID + "-03", "03"},
		{"blanks around", " 00-" + traceID + "-" + parentID + "-01\t", "01"},
		{"newer version", "cc-" + traceID + "-" + parentID + "-01", "01"},
		{"newer version, unknown flags", "cc-" + traceID + "-" + parentID + "-fe", "00"},
		{"newer version, all flags", "cc-" + traceID + "-" + parentID + "-ff-what-comes-later", "01"},
	} {
		r := request(t, Options{}, &message.Message{Headers: headersOf("TraceParent", c.parent, "tracestate", "a=1,b=2")})
		got := r.Header.Get("traceparent")
		if len(got) != 55 || got[:36] != "00-"+traceID+"-" || got[52:] != "-"+c.flags {
			t.Errorf("%s: %s", c.name, got)
		}
		if got[36:52] == parentID {
			t.Errorf("%s: the parent is not a new one", c.name)
		}
		if state := r.Header.Get("tracestate"); state != "a=1,b=2" {
			t.Errorf("%s: tracestate %q", c.name, state)
		}
	}
}

func TestTraceBeginsAnew(t *testing.T) {
	ok := "00-" + traceID + "-" + parentID + "-01"
	for _, parent := range []string{
		"", "-", ok[1:], ok + "0", ok + "-00", strings.ToUpper(ok), "ff" + ok[2:], "0g" + ok[2:],
		"00-" + strings.Repeat("0", 32) + "-" + parentID + "-01", "00-" + traceID + "-" + strings.Repeat("0", 16) + "-01",
		"00-" + traceID + "-" + parentID + "-0", "00_" + ok[3:], strings.Repeat("0", 55), "cc" + ok[2:] + "01", ok[:54] + "\xff",
	} {
		r := request(t, Options{}, &message.Message{Headers: headersOf("traceparent", parent, "tracestate", "a=1")})
		got := r.Header.Get("traceparent")
		trace, flags, valid := readTrace(got)
		if !valid || trace == traceID || string(flags[:]) != "00" {
			t.Errorf("%q: %s", parent, got)
		}
		if r.Header["Tracestate"] != nil {
			t.Errorf("%q: tracestate goes on in another trace", parent)
		}
	}
	r := request(t, Options{}, &message.Message{Headers: headersOf("traceparent", ok, "traceparent", ok)})
	if strings.Contains(r.Header.Get("traceparent"), traceID) {
		t.Error("two parents are none")
	}
}

func TestTracestate(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, s := range []string{
		"a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1 , b=2", "a=1,,b=2", "fw529a3039@dt=FfxyzA", "0t@s=1",
		"a_-*/0=!\"#$~", "a= b", long(256) + "=" + "1", "a=" + long(256),
	} {
		if !isTracestate(s) {
			t.Errorf("%q is valid", s)
		}
	}
	many := make([]string, 33)
	for i := range many {
		many[i] = "k" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "=1"
	}
	if !isTracestate(strings.Join(many[:32], ",")) {
		t.Error("32 members are allowed")
	}
	for _, s := range []string{
		"", ",", "a", "=1", "a=", "A=1", "0a=1", "a=1=2", "a=\x00", "a=\x7f", "a=é", "a=1,a=2", "a@=1", "@a=1", "a@0=1",
		"a@b@c=1", "a@" + long(15) + "=1", long(242) + "@a=1", long(257) + "=1", "a=" + long(257), "a=1\r\nx: y",
		strings.Join(many, ","), "a=" + long(250) + ",b=" + long(250) + ",c=12345",
	} {
		if isTracestate(s) {
			t.Errorf("%.80q is not valid", s)
		}
	}
	ok := "00-" + traceID + "-" + parentID + "-01"
	var dropped []string
	opt := Options{Dropped: func(name string) { dropped = append(dropped, name) }}
	r := request(t, opt, &message.Message{Headers: headersOf("traceparent", ok, "tracestate", "a=1", "Tracestate", "b=2")})
	if got := r.Header.Get("tracestate"); got != "a=1,b=2" {
		t.Errorf("in pieces: %q", got)
	}
	r = request(t, opt, &message.Message{Headers: headersOf("traceparent", ok, "tracestate", "a=1\r\nevil: 1")})
	if r.Header["Tracestate"] != nil || len(dropped) != 1 {
		t.Errorf("invalid: %v, dropped %q", r.Header, dropped)
	}
}

func FuzzTrace(f *testing.F) {
	f.Add("00-"+traceID+"-"+parentID+"-01", "a=1")
	f.Add("cc-"+traceID+"-"+parentID+"-ff-x", "a@b= c")
	f.Fuzz(func(t *testing.T, parent, state string) {
		got, kept := appendTrace(nil, parent)
		if _, _, valid := readTrace(string(got)); !valid || len(got) != 55 {
			t.Fatalf("%q makes %q", parent, got)
		}
		if kept && string(got[3:35]) != parent[3:35] {
			t.Fatalf("%q became another trace: %q", parent, got)
		}
		if isTracestate(state) && (len(state) > 512 || strings.ContainsAny(state, "\x00\r\n")) {
			t.Fatalf("%q", state)
		}
	})
}
