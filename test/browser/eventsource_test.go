package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// What a page POSTs comes to its EventSource: text of several lines as it was, what is no
// text as base64.
func TestEventSourceSeesWhatFetchPosts(t *testing.T) {
	g := serve(t, playground("/playground"), "")
	p := open(t, g.URL("/"))
	p.do(`w = watch("/playground")`)
	if got := await[event](p, "w.log.next()"); got.Type != "open" {
		t.Fatalf("at first %+v", got)
	}
	for script, want := range map[string]string{
		`"hello"`:                         "message hello",
		`"two\nlines\n\n and ünïcödé 🚲"`:  "message two\nlines\n\n and ünïcödé 🚲",
		`JSON.stringify({n: [1, "}"]})`:   `message {"n":[1,"}"]}`,
		`new Uint8Array([255, 0, 1, 10])`: "message-base64 /wABCg==",
	} {
		if got := await[event](p, `post("/playground", `+script+`)`); got.Data != "" {
			t.Fatalf("posting %s: %+v", script, got)
		}
		if got := await[event](p, "w.log.next()"); got.what() != want || got.ID != "" {
			t.Errorf("%s arrived as %+v", script, got)
		}
	}
	if got := await[int](p, `post("/playground", "").then((a) => 0, (e) => 1)`); got != 0 {
		t.Error("an empty POST got no answer")
	}
	p.do(`w.source.close()`)
	gone(t, g)
}

// gone waits until the gateway has noticed that nobody is there any more.
func gone(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(50 * time.Millisecond) // each is a line of the gateway's log
	defer tick.Stop()
	for range tick.C {
		var rows []struct{ ID uint64 }
		g.AdminList("/message_api/sessions", &rows)
		if len(rows) == 0 {
			return
		}
		if time.Since(began) > callTimeout {
			t.Fatalf("%d sessions are still open", len(rows))
		}
	}
}

// An EventSource whose stream was ended comes back by itself and brings the id of the last
// event; the gateway goes on with the one after it. Which message an id stands for is asked
// by GET: it gives the next one.
func TestEventSourceContinuesByLastEventID(t *testing.T) {
	g := serve(t, `message_api /clock {
		entrypoint http_get
		entrypoint sse
		endpoint mock {
			message_interval 100ms
		}
		plan keyless
	}`, "")
	p := open(t, g.URL("/"))
	p.do(`w = watch("/clock")`)
	before := await[[]event](p, "w.log.take(4)") // open, and three messages
	end(t, g, "sse")
	cut := await[[]event](p, `w.log.until("open")`)
	after := await[[]event](p, "w.log.take(3)")
	p.do(`w.source.close()`)

	var ids []string
	var kinds []string
	for _, e := range slices.Concat(before, cut, after) {
		kinds = append(kinds, e.Type)
		if e.Type == "message" {
			ids = append(ids, e.ID)
		}
	}
	all := strings.Join(slices.Compact(kinds), " ")
	if all != "open message goaway error open message" {
		t.Errorf("seen: %s", all)
	}
	if i := slices.IndexFunc(cut, func(e event) bool { return e.Type == "goaway" }); i < 0 ||
		cut[i].Data != `{"reason":"operator","detail":"ended by an operator"}` || cut[i+1].State != 0 {
		t.Errorf("the end was told as %+v", cut)
	}
	client := g.Client(0)
	for n, id := range ids {
		next := gateway.Do(t, client, "GET", g.URL("/clock?limit=1&cursor="+id), "").Page(t)
		if len(next.Items) != 1 || next.Items[0].ID != strconv.Itoa(n+1) || next.Gap != nil {
			t.Errorf("after event %d comes %+v", n, next)
		}
	}
}

// On Kafka an EventSource sees everything once, though its stream is ended and
// the API reloaded with a change while a page publishes.
func TestEventSourceMissesNothing(t *testing.T) {
	api := orders(t)
	folder := pages(t)
	chromium(t)
	g := gateway.Start(t, "", site("http://localhost:PORT", folder, api))
	p := open(t, g.URL("/"))
	p.do(documented(t, `await fetch("/orders", {
    method: "POST",
    body: content`))
	p.do(`w = watch("/orders")`)
	if got := await[event](p, "w.log.next()"); got.Type != "open" {
		t.Fatalf("at first %+v", got)
	}
	// A reload may cost a connection that just came about; what was posted on it is in doubt.
	p.do(`next = 0; doubtful = []; going = true; publishing = (async () => {
		while (going) {
			const i = next++;
			await publish(String(i)).catch((e) => e instanceof TypeError ? doubtful.push(i) : Promise.reject(e));
			await new Promise((r) => setTimeout(r, 20));
		}
	})()`)
	seen := await[[]event](p, "w.log.take(20)")
	end(t, g, "sse")
	seen = append(seen, await[[]event](p, `w.log.until("open")`)...)
	seen = append(seen, await[[]event](p, "w.log.take(20)")...)
	changed := strings.Replace(api, "message_api /orders {", "message_api /orders {\ndescription changed", 1)
	if err := g.Load("", site("http://localhost:PORT", folder, changed)); err != nil {
		t.Fatal(err)
	}
	seen = append(seen, await[[]event](p, `w.log.until("open")`)...)
	p.do(`going = false`)
	await[any](p, "publishing")
	count, doubtful := await[int](p, "next"), await[[]int](p, "doubtful")
	p.do(`publish("last")`)
	for seen[len(seen)-1].Data != "last" {
		seen = append(seen, await[event](p, "w.log.next()"))
	}
	p.do(`w.source.close()`)
	checkOnce(t, seen, count, doubtful)
}

// checkOnce looks for the numbers below count, each once, but for those of which the
// publisher does not know; and for two ends that were told.
func checkOnce(t *testing.T, seen []event, count int, doubtful []int) {
	t.Helper()
	if len(doubtful) > 3 {
		t.Errorf("%d of %d publishes failed", len(doubtful), count)
	}
	numbers := make(map[int]int)
	var ends []string
	for _, e := range seen {
		switch n, err := strconv.Atoi(e.Data); {
		case e.Type == "goaway":
			reason, _, _ := strings.Cut(strings.TrimPrefix(e.Data, `{"reason":"`), `"`)
			ends = append(ends, reason)
		case e.Type == "gap":
			t.Errorf("a gap: %s", e.Data)
		case err == nil && e.Type == "message":
			numbers[n]++
		}
	}
	for n := range count {
		if numbers[n] != 1 && (numbers[n] != 0 || !slices.Contains(doubtful, n)) {
			t.Errorf("message %d of %d came %d times", n, count, numbers[n])
		}
	}
	if fmt.Sprint(ends) != "[operator api_changed]" {
		t.Errorf("the ends were told as %v", ends)
	}
}

// A page that keeps the last id in its storage goes on there when it is loaded again, with
// the code of the documentation as it is.
func TestEventSourceContinuesAfterPageReload(t *testing.T) {
	g := serve(t, orders(t), "")
	p := open(t, g.URL("/"))
	code := documented(t, `localStorage.getItem("orders")`)
	say := func() {
		p.do(`seen = new Log(); console.log = (text) => seen.put(text);` + code + `;
			opened = new Promise((r) => source.addEventListener("open", r))`)
		await[any](p, "opened.then(() => 1)")
	}
	publish := func(content string) {
		if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/orders"), content); a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	say()
	publish("one")
	if got := await[string](p, "seen.next()"); got != "one" {
		t.Fatalf("got %q", got)
	}
	gateway.Eventually(t, callTimeout, "the id in the page's storage", func() bool { return await[bool](p, `!!localStorage.getItem("orders")`) })
	p.navigate("about:blank")
	gone(t, g)
	publish("two")
	publish("three")
	p.navigate(g.URL("/"))
	say()
	got := await[[]string](p, "seen.take(2)")
	slices.Sort(got) // they may be in different partitions
	if fmt.Sprint(got) != "[three two]" {
		t.Errorf("after the reload came %q", got)
	}
	// When it then comes back by itself, the id that it brings wins over the one in its address.
	end(t, g, "sse")
	publish("four")
	if got := await[string](p, "seen.next()"); got != "four" {
		t.Errorf("after the cut came %q", got)
	}
	p.do(`source.close()`)
}

// An answer other than 200 ends an EventSource for good.
func TestEventSourceGivesUpAtAnError(t *testing.T) {
	g := serve(t, orders(t), "")
	p := open(t, g.URL("/"))
	p.do(`w = watch("/orders?last-event-id=nonsense")`)
	if got := await[event](p, "w.log.next()"); got.Type != "error" || got.State != 2 {
		t.Errorf("a bad id in the address: %+v", got)
	}
}
