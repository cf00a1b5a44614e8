package worker

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		name   string
		retry  Retry
		random float64
		want   []time.Duration // after the first attempt and on
		total  time.Duration
	}{
		{"exponential", Retry{Attempts: 5, Delay: time.Second, MaxDelay: 5 * time.Second}, 0.5,
			[]time.Duration{1, 2, 4, 5}, 12 + 5*10},
		{"linear", Retry{Strategy: Linear, Attempts: 4, Delay: time.Second}, 0, []time.Duration{1, 2, 3}, 6 + 4*10},
		{"none", Retry{Strategy: NoRetry, Attempts: 7, Delay: time.Second}, 0, nil, 10},
		{"no attempts", Retry{Delay: time.Second}, 0, nil, 10},
		{"shortest", Retry{Attempts: 2, Delay: 10 * time.Second, Jitter: 0.4}, 0, []time.Duration{6}, 10 + 2*10},
		{"longest", Retry{Attempts: 2, Delay: 10 * time.Second, Jitter: 0.4}, 1, []time.Duration{10}, 10 + 2*10},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, want := range c.want {
				if c.retry.over(i + 1) {
					t.Errorf("over after %d attempts", i+1)
				}
				if got := c.retry.After(i+1, c.random); got != want*time.Second {
					t.Errorf("after attempt %d: %v, want %v", i+1, got, want*time.Second)
				}
			}
			if !c.retry.over(len(c.want) + 1) {
				t.Errorf("not over after %d attempts", len(c.want)+1)
			}
			if got := c.retry.Total(10 * time.Second); got != c.total*time.Second {
				t.Errorf("in all %v, want %v", got, c.total*time.Second)
			}
		})
	}
}

func TestSchedulesWithoutEnd(t *testing.T) {
	r := Retry{Attempts: Unlimited, Delay: time.Hour}
	if r.over(math.MaxInt) || r.Total(time.Second) != -1 {
		t.Error("it ends")
	}
	if d := r.After(math.MaxInt, 1); d <= 0 {
		t.Errorf("after very many attempts: %v", d)
	}
	if d := (Retry{Attempts: 100, Delay: time.Hour}).Total(time.Hour); d != math.MaxInt64 {
		t.Errorf("more than can be told: %v", d)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		ByKey.String() + ByLane.String() + None.String():          "keylanenone",
		Stop.String() + DeadLetter.String() + Skip.String():       "stopdead_letterskip",
		Exponential.String() + Linear.String() + NoRetry.String(): "exponentiallinearnone",
		short(strings.Repeat("x", maxError+1)):                    strings.Repeat("x", maxError),
		short(strings.Repeat("x", maxError-1) + "ä"):              strings.Repeat("x", maxError-1),
		short("short"): "short",
		position(&item{d: of(message.Mark{}, "")}):                       "q",
		position(&item{d: of(message.Mark{}, "m-1")}):                    "q m-1",
		position(&item{d: of(message.Mark{Channel: "q", Next: 8}, "x")}): "q@7",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func of(m message.Mark, id string) message.Delivery {
	return message.Delivery{Message: &message.Message{ID: id}, Lane: "q", Mark: m}
}
