package gateway

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests and fails when they leave goroutines behind.
func Main(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(binaryDir); err != nil { // removing "" does nothing
		fmt.Println("removing the caddy command:", err)
		code = 1
	}
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		// Caddy and certmagic keep these for the life of the process, or for a few seconds
		// after a configuration is gone.
		ignore := []goleak.Option{
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.replaceLocalAdminServer.func2"),
		}
		// A server that shuts down looks for its last connections every half second.
		err := goleak.Find(ignore...)
		for try := 0; err != nil && try < 10; try++ {
			err = goleak.Find(ignore...)
		}
		if err != nil {
			fmt.Println("goroutines left behind:", err)
			code = 1
		}
	}
	os.Exit(code)
}
