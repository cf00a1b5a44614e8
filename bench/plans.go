//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// planBenchmarks are what plans and limits cost: the same POST under a plan and keyless, in
// one gateway.
func planBenchmarks() []*benchmark {
	goals := []goal{{metric: rate, kind: ratioAtLeast, bound: 0.85}, forTheRecord(cpu)}
	limits := "rate_limit 1000000000/1s\nquota 1000000000000/1d\npublish_rate 1000000000/1s\n"
	row := func(name, what, plan string) *benchmark {
		return &benchmark{"plans/" + name, what + " beside keyless, 32 callers", "calls", goals,
			func(e *env) (*setup, error) { return startPlan(e, plan) }}
	}
	return []*benchmark{
		row("api_key", "POST of 256 bytes to the mock with an API key", "plan api_key {\nvalidation auto\n}"),
		row("api_key/limits", "POST of 256 bytes to the mock with an API key, a rate limit, a quota and a publish rate",
			"plan api_key {\nvalidation auto\n"+limits+"}"),
		row("api_key/rule", "POST of 256 bytes to the mock with an API key and a selection rule",
			"plan api_key {\nvalidation auto\nselection_rule `{http.request.method} == \"POST\"`\n}"),
		row("jwt", "POST of 256 bytes to the mock with a token (HS256)",
			"plan jwt {\nvalidation auto\nsecret \""+benchSecret+"\"\naudience bench\n}"),
	}
}

const benchSecret = "a secret of more than thirty-two characters"

func startPlan(e *env, plan string) (*setup, error) {
	adminPort, err := freePort()
	if err != nil {
		return nil, err
	}
	const ways = "\n\t\tentrypoint http_post\n\t\tendpoint mock\n\t\t"
	s, err := startServer(e.opt, fmt.Sprintf("admin 127.0.0.1:%d", adminPort),
		"\tmessage_api /plan {"+ways+plan+"\n\t}\n\tmessage_api /keyless {"+ways+"plan keyless\n\t}\n")
	if err != nil {
		return nil, err
	}
	credential, err := subscribe(e.ctx, fmt.Sprintf("http://127.0.0.1:%d", adminPort))
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	post := func(path string, headers ...string) []byte {
		return load.Request(http.MethodPost, s.addr, path, "*/*", load.Content(), headers...)
	}
	return &setup{close: s.Close, sides: []side{
		callers(s, "plan", 32, post("/plan", credential...), statusAccepted),
		callers(s, "keyless", 32, post("/keyless"), statusAccepted),
	}}, nil
}

// subscribe makes a subscription to the only plan of the API, and returns the header that
// shows it.
func subscribe(ctx context.Context, base string) (header []string, err error) {
	client := &admin.Client{Base: base}
	defer client.Close()
	name := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	app, err := client.CreateApplication(ctx, admin.NewApplication{Name: name, ClientID: name})
	if err != nil {
		return nil, err
	}
	for plan, planErr := range client.Plans(ctx, "plan") {
		if planErr != nil {
			return nil, planErr
		}
		sub, err := client.Subscribe(ctx, admin.SubscribeRequest{API: "plan", Plan: plan.Name, Application: app.ID})
		if err != nil {
			return nil, err
		}
		if sub.NewKey != nil {
			return []string{"X-Gravitee-Api-Key", sub.NewKey.Secret}, nil
		}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"azp": name, "aud": "bench", "exp": time.Now().Add(24 * time.Hour).Unix(),
	}).SignedString([]byte(benchSecret))
	return []string{"Authorization", "Bearer " + token}, err
}
