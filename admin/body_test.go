package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeBody(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		into any
		// want are the paths of the problems; "-" is a problem without any.
		want string
		says string
	}{
		"good":                    {`{"api":"a","plan":"p","application":"x","limits":{"rate_limit":"1/1s"},"metadata":{"k":"v"}}`, new(SubscribeRequest), "", ""},
		"null is absent":          {`{"api":null,"starts":null,"limits":null}`, new(SubscribeRequest), "", ""},
		"unknown":                 {`{"apy":"a"}`, new(SubscribeRequest), "apy", "there are api, plan"},
		"unknown below":           {`{"limits":{"rate":"1/1s"}}`, new(SubscribeRequest), "limits.rate", "rate_limit"},
		"unknown in a patch":      {`{"limits":{"rate":"1/1s"}}`, new(SubscriptionPatch), "limits.rate", ""},
		"another case":            {`{"API":"a"}`, new(SubscribeRequest), "API", ""},
		"twice":                   {`{"api":"a","api":"b"}`, new(SubscribeRequest), "api", "twice"},
		"escaped twice":           {`{"api":"a","\u0061pi":"b"}`, new(SubscribeRequest), "api", "twice"},
		"all at once":             {`{"api":1,"starts":"soon","limits":[],"x":0}`, new(SubscribeRequest), "api starts limits x", ""},
		"number for text":         {`{"api":1}`, new(SubscribeRequest), "api", "a text is wanted here, not this number"},
		"text for number":         {`{"limits":{"max_sessions":"7"}}`, new(SubscribeRequest), "limits.max_sessions", "a whole number"},
		"a broken number":         {`{"limits":{"max_sessions":1.5}}`, new(SubscribeRequest), "limits.max_sessions", "a whole number"},
		"a list for the body":     {`[]`, new(SubscribeRequest), "", "an object is wanted here"},
		"null for the body":       {`null`, new(SubscribeRequest), "", "an object is wanted here, not null"},
		"in a list":               {`{"members":["a",2,"c",{}]}`, new(Members), "members[1] members[3]", ""},
		"in a map":                {`{"metadata":{"a":1,"b":"x"}}`, new(SubscribeRequest), "metadata.a", ""},
		"nothing":                 {``, new(SubscribeRequest), "-", "the body is empty"},
		"blanks":                  {" \n", new(SubscribeRequest), "-", "the body is empty"},
		"garbage after":           {`{"reason":"x"} {}`, new(Reason), "-", "line 1, column 16"},
		"garbage":                 {"{\n\"reason\": x}", new(Reason), "-", "line 2, column 11"},
		"cut":                     {`{"reason":"x`, new(Reason), "-", "unexpected end"},
		"not UTF-8":               {"{\"reason\":\"\xff\"}", new(Reason), "-", "UTF-8"},
		"byte order mark":         {"\ufeff{}", new(Reason), "-", "line 1, column 1"},
		"a definition":            {`{"plans":[{"plan":{"type":"api_key"}}],"x":{"a":1},"y":{"a":1}}`, new(json.RawMessage), "", ""},
		"twice in a definition":   {`{"plans":[{},{"plan":{"a":[1,{"b":1,"b":2}]}}]}`, new(json.RawMessage), "plans[1].plan.a[1].b", "twice"},
		"a definition too deep":   {strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), new(json.RawMessage), strings.Repeat("a.", 99) + "a", "deeper"},
		"a body too deep":         {strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), new(json.RawMessage), "-", "depth"},
		"too deep where no place": {`{"a":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, new(Reason), "a", "no such member"},
	} {
		t.Run(name, func(t *testing.T) {
			err := decodeBody([]byte(c.body), c.into)
			if c.want == "" && c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			problem, ok := err.(*ProblemDetails)
			if !ok || problem.Status != http.StatusBadRequest || problem.Slug() != InvalidBody {
				t.Fatalf("%#v", err)
			}
			var paths []string
			for _, p := range problem.Problems {
				paths = append(paths, p.Path)
			}
			if got := strings.Join(paths, " "); got != strings.TrimPrefix(c.want, "-") {
				t.Errorf("problems at %q, want %q", got, c.want)
			}
			if (len(paths) == 0) != (c.want == "-") {
				t.Errorf("%d problems: %v", len(paths), problem)
			}
			if !strings.Contains(problem.Error(), c.says) {
				t.Errorf("%q does not say %q", problem.Error(), c.says)
			}
		})
	}
}

// What is in the wrong place may be a secret.
func TestProblemsDoNotRepeatValues(t *testing.T) {
	const secret = "cma_hunter2hunter2"
	for _, body := range []string{
		`{"starts":"` + secret + `"}`, `{"limits":"` + secret + `"}`, `{"limits":{"max_sessions":"` + secret + `"}}`,
		`{"metadata":"` + secret + `"}`, `{"api":["` + secret + `"]}`, `{"nothing":"` + secret + `"}`, `"` + secret + `"`,
		`{"key":"` + secret + `"`, `{"key":"` + secret + `"}}`,
	} {
		err := decodeBody([]byte(body), new(SubscribeRequest))
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestBodyWithEverythingWrong(t *testing.T) {
	err := decodeBody([]byte(`{"members":[`+strings.Repeat("1,", 200_000)+`1]}`), new(Members))
	if problem, ok := err.(*ProblemDetails); !ok || len(problem.Problems) != maxProblems {
		t.Fatalf("%T", err)
	}
}

func TestReadBodyBounds(t *testing.T) {
	for name, c := range map[string]struct {
		body     string
		optional bool
		status   int
	}{
		"as long as allowed": {`{"reason":"` + strings.Repeat("x", maxBody-13) + `"}`, false, 0},
		"one too long":       {`{"reason":"` + strings.Repeat("x", maxBody-12) + `"}`, false, http.StatusRequestEntityTooLarge},
		"none, needed":       {"", false, http.StatusBadRequest},
		"none, optional":     {"", true, 0},
		"blank, optional":    {" ", true, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
			err := readBody(httptest.NewRecorder(), r, new(Reason), c.optional)
			problem, _ := err.(*ProblemDetails)
			if (err == nil) != (c.status == 0) || problem != nil && problem.Status != c.status {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestMediaType(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, encoding, body string
		good                        bool
	}{
		"json":                   {"application/json", "", "{}", true},
		"json with charset":      {"application/json; charset=utf-8", "", "{}", true},
		"another case":           {"Application/JSON", "", "{}", true},
		"none, and no body":      {"", "", "", true},
		"none":                   {"", "", "{}", false},
		"a form":                 {"application/x-www-form-urlencoded", "", "a=b", false},
		"an empty form":          {"application/x-www-form-urlencoded", "", "", false},
		"text, as a page can":    {"text/plain", "", "{}", false},
		"text with json in it":   {"text/plain; application/json", "", "{}", false},
		"json with a suffix":     {"application/json-patch+json", "", "{}", false},
		"broken":                 {"application/json; =", "", "{}", false},
		"compressed":             {"application/json", "gzip", "{}", false},
		"compressed, by no name": {"application/json", "identity", "{}", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			if c.encoding != "" {
				r.Header.Set("Content-Encoding", c.encoding)
			}
			err := checkMediaType(r)
			if problem, _ := err.(*ProblemDetails); (err == nil) != c.good || problem != nil && problem.Status != http.StatusUnsupportedMediaType {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestOptional(t *testing.T) {
	at := time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]SubscriptionPatch{
		`{}`:                                {},
		`{"ends":null}`:                     {Ends: Null[time.Time]()},
		`{"starts":"2026-12-31T00:00:00Z"}`: {Starts: Some(at)},
		`{"limits":null,"metadata":null}`:   {Limits: Null[*Limits](), Metadata: Null[map[string]string]()},
		`{"limits":{"max_sessions":7}}`:     {Limits: Some(&Limits{MaxSessions: 7})},
	} {
		var got SubscriptionPatch
		if err := decodeBody([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
		if again, err := json.Marshal(want); err != nil || string(again) != text {
			t.Errorf("%s is written %s, %v", text, again, err)
		}
	}
}

// FuzzDecodeBody: whatever comes, there is an answer; what is taken is what was sent; and
// checkShape lets nothing through that decoding does not.
func FuzzDecodeBody(f *testing.F) {
	for _, seed := range []string{
		`{"api":"a","limits":{"rate_limit":"1/1s","max_sessions":3},"metadata":{"a":"b"},"starts":"2026-12-31T00:00:00Z"}`,
		`{"api":1,"starts":"x"}`, `{"a":{"a":1,"a":2}}`, `[[[]]]`, `{"limits":null}`, `null`, ``, "\xff", `{"":""}`, `{"ends":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, v := range []any{new(SubscribeRequest), new(SubscriptionPatch), new(ApplicationPatch), new(Members), new(json.RawMessage)} {
			err := decodeBody(body, v)
			if problem, ok := err.(*ProblemDetails); err != nil && (!ok || problem.Detail == "" || len(problem.Problems) > maxProblems) {
				t.Fatalf("%T: %#v", v, err)
			}
			if err != nil {
				continue
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%T was taken and can't be written: %v", v, err)
			}
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := decodeBody(text, again); err != nil {
				t.Fatalf("%T was taken as %s, which is not taken: %v", v, text, err)
			}
		}
	})
}
