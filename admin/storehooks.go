package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// StoreHooks are what the server needs of the store.
type StoreHooks struct {
	Status func() StoreStatus
	Export func(ctx context.Context, w io.Writer) error
	Import func(ctx context.Context, r io.Reader) (ImportReport, error)
	Sync   func(ctx context.Context) error
}

// storeProblem makes a problem of what the store, or nobody, has foreseen. Causes stay in the
// log: they can name what belongs to the storage alone.
func storeProblem(err error) *ProblemDetails {
	problem := func(status int, slug, detail string) *ProblemDetails {
		return refuse(status, slug, "%s%s", undertaking(err), detail)
	}
	switch {
	case errors.Is(err, store.ErrUncertain), errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, Unknown, "the storage failed, and the change may have been stored or not: read it again before you repeat it")
	case errors.Is(err, context.Canceled):
		return problem(http.StatusGatewayTimeout, Unknown, "the request broke off, and part of it may have been done")
	case errors.Is(err, store.ErrUnavailable):
		return problem(http.StatusServiceUnavailable, Unavailable, "the storage is not available, and has not taken the change; the log of the gateway says why")
	case errors.Is(err, store.ErrClosed):
		return problem(http.StatusServiceUnavailable, Unavailable, "the gateway is about to stop")
	case errors.Is(err, store.ErrInvalid):
		return problem(http.StatusBadRequest, InvalidValue, "it is too large to be stored")
	case errors.Is(err, store.ErrConflict):
		return problem(http.StatusConflict, Conflict, "others are changing it at the same time: try again")
	}
	return refuse(http.StatusInternalServerError, Internal, "the gateway failed; its log says why")
}

// undertaking is what the registries say before the store's error: what was being done, and
// what of it is done.
func undertaking(err error) string {
	before, _, found := strings.Cut(err.Error(), "store: ")
	if !found {
		return ""
	}
	return before
}

// StoreHooksOf are the hooks of a store. merge decides about records that an import brings and
// that are there already, as store.ImportWith describes.
func StoreHooksOf(s *store.Store, merge func(old *store.Record, in store.Record) (store.Record, error)) StoreHooks {
	return StoreHooks{
		Status: func() StoreStatus { return statusOf(s) },
		Export: s.Export,
		Sync:   s.Sync,
		Import: func(ctx context.Context, r io.Reader) (ImportReport, error) {
			report, err := s.ImportWith(ctx, r, merge)
			return ImportReport{
				Added: report.Added, Updated: report.Updated, Unchanged: report.Unchanged, NotTaken: report.NotTaken,
				Skipped: convertEach(report.Skipped, func(one store.Skipped) Skipped { return Skipped{Kind: one.Kind, ID: one.ID, Reason: one.Reason} }),
			}, err
		},
	}
}

// kinds are what is counted in the store.
var kinds = []string{"api", subscriptions.KindApplication, subscriptions.KindSubscription, subscriptions.KindKey, "worker"}

func statusOf(s *store.Store) StoreStatus {
	status := StoreStatus{
		Node: s.Node(), Records: map[string]int{},
		Nodes: convertEach(s.Nodes(), func(n store.NodeInfo) StoreNode {
			return StoreNode{ID: n.ID, Host: n.Host, Self: n.Self, Alive: n.Alive, Sequence: n.Seq, Seen: n.Seen}
		}),
		Problems: convertEach(s.Problems(), func(p store.Problem) StoreProblem { return StoreProblem{Path: p.Key, Detail: p.Detail, At: p.Since} }),
	}
	for _, kind := range kinds {
		status.Records[kind] = s.Len(kind)
	}
	return status
}

// importProblem tells a bad file from a failure of the storage. Either can come in the middle.
func importProblem(err error, report ImportReport) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return refuse(http.StatusRequestEntityTooLarge, TooLarge, "the import is longer than %d bytes; %s", maxImport, report.done())
	}
	for _, failure := range []error{store.ErrUncertain, store.ErrUnavailable, store.ErrClosed, store.ErrConflict, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, failure) {
			return fmt.Errorf("%s, and importing the rest can be tried again: %w", report.done(), err)
		}
	}
	return invalidBody("%s; %s", strings.TrimPrefix(err.Error(), "store: "), report.done())
}

// done says what an import that failed has done.
func (r *ImportReport) done() string {
	return fmt.Sprintf("%d records were added and %d updated", r.Added, r.Updated)
}
