//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/bench/kafka"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
	"github.com/caddy-message-api/caddy-message-api/bench/webhook"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// TestMain lets this binary be its own child, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{serverRole, kafka.Role, webhook.Role}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v: %g, want %g", test.values, got, test.want)
		}
	}
}

func rates(values ...float64) []sample {
	samples := make([]sample, len(values))
	for i, v := range values {
		samples[i] = sample{Rate: v, CPU: 100 / v, P50: v * 1000, Resident: v}
	}
	return samples
}

func TestJudge(t *testing.T) {
	res := &result{sides: []string{"gateway", "slow", "fast"}, samples: [][]sample{
		rates(50, 60, 40), rates(50, 30, 80), rates(100, 100, 50),
	}}
	yes, no := true, false
	for name, test := range map[string]struct {
		goal    goal
		value   float64
		against string
		ok      *bool
	}{
		"against the best":  {goal{metric: rate, kind: ratioAtLeast, bound: 0.6}, 0.6, "fast", &yes},
		"against another":   {goal{metric: rate, kind: ratioAtLeast, bound: 1.1, against: "slow"}, 1, "slow", &no},
		"less is better":    {goal{metric: cpu, kind: ratioAtMost, bound: 1.5}, 1 / 0.6, "fast", &no},
		"a difference":      {goal{metric: latency, kind: differenceAtMost, bound: 0, against: "slow"}, 0, "slow", &yes},
		"the value alone":   {goal{metric: perClient, kind: valueAtMost, bound: 45}, 50, "", &no},
		"without any bound": {forTheRecord(rate), 0.6, "fast", nil},
	} {
		v := res.judge(&test.goal)
		if diff := v.Value - test.value; diff > 1e-9 || diff < -1e-9 || v.Against != test.against {
			t.Errorf("%s: %g against %q, want %g against %q", name, v.Value, v.Against, test.value, test.against)
		}
		if (v.OK == nil) != (test.ok == nil) || v.OK != nil && *v.OK != *test.ok {
			t.Errorf("%s: the verdict is wrong: %+v", name, v)
		}
	}
}

func TestScanPage(t *testing.T) {
	n, cursor, err := scanPage([]byte(`{"items":[{"content":"^a"},{"content":"^b"}],"pagination":{"nextCursor":"AbC"}}`))
	if n != 2 || cursor != "AbC" || err != nil {
		t.Errorf("%d messages, cursor %q, %v", n, cursor, err)
	}
	for _, bad := range []string{`{}`, `{"pagination":{"nextCursor":"AbC`} {
		if _, _, err := scanPage([]byte(bad)); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
	if _, err := parsePage([]byte(`{"items":[],"gap":{"reason":"expired"}}`)); err == nil {
		t.Error("a gap is no error")
	}
}

// TestWhatIsMeasured runs what is cheap of the suite, for as short as can be, so that a
// change of the gateway that breaks the benchmarks is noticed.
func TestWhatIsMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it starts several Caddies")
	}
	for _, name := range []string{"KAFKA_ADDR", "RABBITMQ_ADDR", "MQTT_ADDR"} {
		t.Setenv(name, "")
	}
	pattern, want := "^(mock/|kafka/|webhook/kafka|fanout/.*/100/closed", 12
	if !brokers.WithoutRabbitMQ() {
		pattern, want = pattern+"|rabbitmq/|webhook/rabbitmq", want+6
	}
	if !brokers.WithoutMosquitto() {
		pattern, want = pattern+"|mqtt/", want+4
	}
	file := filepath.Join(t.TempDir(), "figures.json")
	opt, err := parse([]string{"-quick", "-rounds", "1", "-scale", "0.05", "-server-cpu", "-1", "-load-cpu", "-1",
		"-json", file, "-run", pattern + ")"})
	if err != nil {
		t.Fatal(err)
	}
	if err := measure(opt); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(raw, &rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.Benchmarks) != want {
		t.Errorf("%d benchmarks were measured, want %d; not measured: %v", len(rep.Benchmarks), want, rep.NotMeasured)
	}
	for _, b := range rep.Benchmarks {
		for side, samples := range b.Rounds {
			if len(samples) != 1 || samples[0].Rate <= 0 || samples[0].CPU <= 0 {
				t.Errorf("%s: %s: %+v", b.Name, side, samples)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-rounds", "-1"}, {"-scale", "-1"}, {"everything"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
	opt, err := parse([]string{"-run", "nothing like this"})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{opt: opt, ctx: t.Context()}
	if err := e.measureAll(benchmarks(opt)); err == nil || !strings.Contains(err.Error(), "-list") {
		t.Errorf("the error is %v", err)
	}
}

// What needs a broker that is not installed is no failure, and not silent.
func TestNotMeasured(t *testing.T) {
	opt, err := parse([]string{"-run", "^absent$"})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{opt: opt, ctx: t.Context()}
	absent := &benchmark{name: "absent", start: func(*env) (*setup, error) {
		return nil, plain.ErrMissing{Err: errors.New("it is not installed")}
	}}
	if err := e.measureAll([]*benchmark{absent}); err != nil {
		t.Errorf("it is an error: %v", err)
	}
}

func TestReadmeNamesEverything(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range benchmarks(new(options)) {
		parts := strings.SplitN(b.name, "/", 3)
		if !bytes.Contains(readme, []byte("`"+parts[0]+"/")) {
			t.Errorf("README.md does not tell about %s", b.name)
		}
	}
}
