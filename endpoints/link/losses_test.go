package link_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

func TestLossesAreToldOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		l := link.NewLosses(zap.New(core), "gone")
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { l.Note(5, errors.New("cut"), zap.String("topic", "orders")) })
		}
		wg.Wait()
		if l.Count() != 50 || logs.Len() != 1 {
			t.Errorf("%d were counted and %d told", l.Count(), logs.Len())
		}
		time.Sleep(time.Second)
		l.Note(1, errors.New("cut again"))
		if logs.Len() != 2 || logs.All()[1].ContextMap()["messages_so_far"] != int64(51) || logs.All()[0].ContextMap()["topic"] != "orders" {
			t.Errorf("told: %+v", logs.All())
		}
	})
}
