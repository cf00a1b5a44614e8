package parse_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
)

// everything has one option of each kind.
type everything struct {
	String   string
	Word     word
	Strings  []string
	Pairs    [][2]string
	Duration caddy.Duration
	Optional *caddy.Duration
	Int      int
	Size     int64
	Flag     bool
	OptFlag  *bool
	Inner    string
	Deep     int
}

type word string

func (e *everything) read(text string) error {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "endpoint test",
		parse.String("string", &e.String),
		parse.OneOf("word", &e.Word, "one", "two"),
		parse.Strings("strings", &e.Strings),
		parse.Pairs("pair", func(k, v string) { e.Pairs = append(e.Pairs, [2]string{k, v}) }),
		parse.Duration("duration", &e.Duration),
		parse.OptionalDuration("optional", &e.Optional),
		parse.Int("int", &e.Int, 2),
		parse.Size("size", &e.Size),
		parse.Flag("flag", &e.Flag),
		parse.OptionalFlag("opt_flag", &e.OptFlag),
		parse.Nested("nested",
			parse.String("inner", &e.Inner),
			parse.Nested("deeper", parse.Int("deep", &e.Deep, 0)),
		),
	)
}

func block(lines ...string) string { return "test {\n\t" + strings.Join(lines, "\n\t") + "\n}" }

func TestGood(t *testing.T) {
	seconds := func(n int) *caddy.Duration {
		d := caddy.Duration(time.Duration(n) * time.Second)
		return &d
	}
	on, off := true, false
	for text, want := range map[string]everything{
		"test":                {},
		"test {\n}":           {},
		block("string value"): {String: "value"},
		block(`string "a b"`): {String: "a b"},
		block(`string ""`):    {},
		block("word two"):     {Word: "two"},
		block("strings a"):    {Strings: []string{"a"}},
		block("strings a b", "string x", "strings c"): {Strings: []string{"a", "b", "c"}, String: "x"},
		block("pair k v", `pair k ""`):                {Pairs: [][2]string{{"k", "v"}, {"k", ""}}},
		block("duration 1m30s"):                       {Duration: caddy.Duration(90 * time.Second)},
		block("duration 2d"):                          {Duration: caddy.Duration(48 * time.Hour)},
		block("duration 0"):                           {},
		block("optional 5s"):                          {Optional: seconds(5)},
		block("optional off"):                         {Optional: seconds(0)},
		block("optional 0s"):                          {Optional: seconds(0)},
		block("int 2"):                                {Int: 2},
		block("int 1000000"):                          {Int: 1000000},
		block("size 64KiB"):                           {Size: 64 << 10},
		block("size 1MB"):                             {Size: 1_000_000},
		block("size 1"):                               {Size: 1},
		block(`size "1 MiB"`):                         {Size: 1 << 20},
		block("size 1TiB"):                            {Size: 1 << 40},
		block("flag"):                                 {Flag: true},
		block("flag on"):                              {Flag: true},
		block("flag off"):                             {},
		block("opt_flag"):                             {OptFlag: &on},
		block("opt_flag on"):                          {OptFlag: &on},
		block("opt_flag off"):                         {OptFlag: &off},
		block("nested {", "}"):                        {},
		block("nested"):                               {},
		block("nested {", "inner x", "deeper {", "deep 3", "}", "}", "string after"): {Inner: "x", Deep: 3, String: "after"},
	} {
		var got everything
		if err := got.read(text); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

// Every error names file and line, what is wrong, and what would be right.
func TestBad(t *testing.T) {
	for text, want := range map[string][]string{
		"test value":                                 {":1", `test takes no value here: "value" is one too many`},
		block("unknown x"):                           {":2", `unknown option "unknown" in endpoint test`, "duration, flag, int, nested"},
		block("String x"):                            {`unknown option "String"`},
		block("string a", "string b"):                {":3", `"string" in endpoint test stands twice, first on line 2`},
		block("flag", "int 2", "flag off"):           {":4", "stands twice, first on line 2"},
		block("string"):                              {":2", `"string" needs a value`},
		block("string a b"):                          {`"string" takes one value, and "b" is one too many`},
		block("word"):                                {`"word" needs a value`},
		block("word three"):                          {`word "three": use one, two`},
		block("word One"):                            {"use one, two"},
		block("strings"):                             {`"strings" needs at least one value`},
		block("pair"):                                {`"pair" needs a name and a value`},
		block("pair k"):                              {"a name and a value"},
		block("pair k v w"):                          {"a name and a value"},
		block("duration"):                            {"needs a value"},
		block("duration 5"):                          {`duration "5" is not a duration`, "5s"},
		block("duration -5s"):                        {"is not a duration"},
		block("duration off"):                        {"is not a duration"},
		block("duration 5s 6s"):                      {"one too many"},
		block("optional never"):                      {`optional "never"`, "or off"},
		block("optional -1s"):                        {"or off"},
		block("optional"):                            {"needs a value"},
		block("int"):                                 {"needs a value"},
		block("int 1"):                               {`int "1" is not a whole number of at least 2`},
		block("int 2.5"):                             {"whole number"},
		block("int -3"):                              {"whole number"},
		block("int 99999999999999999999"):            {"whole number"},
		block("int x"):                               {"whole number"},
		block("int 2 3"):                             {"one too many"},
		block("size"):                                {"needs a value"},
		block("size 0"):                              {`size "0" is not a size`, "64KiB"},
		block("size -1"):                             {"is not a size"},
		block("size big"):                            {"is not a size"},
		block("size 2TiB"):                           {"is not a size"},
		block("size 1 MiB"):                          {"one too many"},
		block("flag maybe"):                          {`flag "maybe": use on or off`},
		block("flag on off"):                         {"one too many"},
		block("opt_flag 1"):                          {"use on or off"},
		block("nested x {", "}"):                     {`"x" is one too many`},
		block("nested {", "string x", "}"):           {":3", `unknown option "string" in nested`, "deeper, inner"},
		block("nested {", "inner a", "inner b", "}"): {`"inner" in nested stands twice, first on line 3`},
		block("nested {", "deeper {", "deep x", "}", "}"): {":4", `deep "x"`},
	} {
		var got everything
		err := got.read(text)
		if err == nil {
			t.Errorf("%s: was accepted as %+v", text, got)
			continue
		}
		for _, w := range append(want, "Testfile") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", text, err, w)
			}
		}
	}
}

func TestBlockWithoutOptions(t *testing.T) {
	d := caddyfile.NewTestDispenser("plan {\n\tanything\n}")
	d.Next()
	if err := parse.Block(d, "plan test"); err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Errorf("got %v", err)
	}
}

// After a block the dispenser stands where the next reader expects it.
func TestBlockEndsWhereItEnds(t *testing.T) {
	for _, first := range []string{"one {\n\tx 1\n}", "one {\n}", "one {\n\tx 1\n\tn {\n\t\ty 2\n\t}\n}"} {
		d := caddyfile.NewTestDispenser("outer {\n" + first + "\ntwo\nthree\n}")
		d.Next()
		var names []string
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			names = append(names, d.Val())
			var x, y string
			if err := parse.Block(d, "test", parse.String("x", &x), parse.Nested("n", parse.String("y", &y))); err != nil {
				t.Fatalf("%s: %v", first, err)
			}
		}
		if !slices.Equal(names, []string{"one", "two", "three"}) {
			t.Errorf("%s: read %q", first, names)
		}
	}
}
