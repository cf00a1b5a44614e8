// Package browser tests the gateway with what most of its clients are: pages in a real
// browser, with its own EventSource, WebSocket, fetch and rules about origins.
package browser

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	_ "github.com/caddy-message-api/caddy-message-api" // every module of the default set
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

const (
	startTimeout = 60 * time.Second
	// callTimeout is longer than an EventSource waits before it comes back.
	callTimeout = 30 * time.Second
)

// chromium finds the browser. Without one a test fails, unless it was said that there is
// none: a skip that nobody asked for is a test that nobody misses.
func chromium(t *testing.T) string {
	t.Helper()
	if os.Getenv("MESSAGE_API_NO_CHROMIUM") == "1" {
		t.Skip("NOT RUN in a browser: MESSAGE_API_NO_CHROMIUM=1")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium is installed: apt-get install chromium, or set MESSAGE_API_NO_CHROMIUM=1 to do without")
	return ""
}

// page is a tab of a browser that the test has for itself.
type page struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	thrown []string
}

// open starts a browser, with flags beside the usual ones, and shows an address.
func open(t *testing.T, url string, flags ...chromedp.ExecAllocatorOption) *page {
	t.Helper()
	path := chromium(t)
	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its last child may still write for a moment
		gateway.Eventually(t, 10*time.Second, "removing "+profile, func() bool { return os.RemoveAll(profile) == nil })
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(profile, "data")),
		chromedp.WSURLReadTimeout(startTimeout), chromedp.Flag("disable-component-update", true),
		// A page that was left is gone, and not kept with its connections for the way back.
		chromedp.Flag("disable-features", "Translate,BackForwardCache"),
		// Nobody needs to be asked, and nothing goes to the network.
		chromedp.Flag("no-proxy-server", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(options, flags...)...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)

	p := &page{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, p.listen)
	// The first Run starts the browser, whose life is bound to the context that it gets.
	began := time.AfterFunc(startTimeout, cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	began.Stop()
	t.Cleanup(p.close)
	p.navigate(url)
	return p
}

// listen hears what nobody in the page caught.
func (p *page) listen(event any) {
	if e, ok := event.(*runtime.EventExceptionThrown); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.thrown = append(p.thrown, e.ExceptionDetails.Error())
	}
}

func (p *page) close() {
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
		p.t.Errorf("closing the browser: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thrown := range p.thrown {
		p.t.Errorf("thrown in the page: %s", thrown)
	}
}

func (p *page) run(what string, actions ...chromedp.Action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, callTimeout)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		p.t.Fatalf("in the page: %s: %v", what, err)
	}
}

// navigate shows another address.
func (p *page) navigate(url string) {
	p.t.Helper()
	p.run("going to "+url, chromedp.Navigate(url))
}

// do runs statements in the page, in its global scope.
func (p *page) do(script string) {
	p.t.Helper()
	p.run(script, chromedp.Evaluate(script+"\n;undefined", nil))
}

// await gives what an expression comes to, when a promise also what that comes to.
func await[T any](p *page, expression string) T {
	p.t.Helper()
	var value T
	p.run(expression, chromedp.Evaluate(expression, &value, func(e *runtime.EvaluateParams) *runtime.EvaluateParams {
		return e.WithAwaitPromise(true)
	}))
	return value
}
