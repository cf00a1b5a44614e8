package admin

import (
	"strings"

	"go.uber.org/zap"
)

// entry is one line of the audit log: who wanted to change what, and what came of it. It has
// names and numbers alone. Values are never in it, so that no secret can be, and a definition
// is the number of its revision.
type entry struct {
	action, kind, id string
	by, remote       string
	// of is what a new subscription or key is for: API, plan and application, or subscription.
	of string
	// newKey is the id of a key that was made.
	newKey string
	// changed are the names of what was to change.
	changed []string
	// revision is that of a definition.
	revision int
	// version is the one after the change.
	version uint64
	reason  string
	// same: it was so already.
	same bool
}

// AuditLogger is the name of the logger for Deps.Audit.
const AuditLogger = "message_api.audit"

func newEntry(route route, q *request) *entry {
	return &entry{action: route.action, kind: route.kind, id: pathID(q, route.kind), by: q.by, remote: q.RemoteAddr}
}

// pathID is the id in the path; empty when something new is to be made.
func pathID(q *request, kind string) string {
	if kind == "plan" {
		return clip(q.PathValue("id")) + "/" + clip(q.PathValue("plan"))
	}
	return clip(q.PathValue("id"))
}

// write logs the entry. problem is nil if the change was made.
func (e *entry) write(log *zap.Logger, problem *ProblemDetails) {
	if e == nil {
		return
	}
	fields := []zap.Field{
		zap.String("action", e.action), zap.String("kind", e.kind), zap.String("id", e.id),
		zap.String("by", e.by), zap.String("remote", e.remote), zap.String("outcome", e.outcome(problem)),
	}
	if problem != nil {
		// Not the detail, which may repeat what was sent.
		fields = append(fields, zap.Int("status", problem.Status), zap.String("problem", problem.Slug()))
	}
	if e.of != "" {
		fields = append(fields, zap.String("of", e.of))
	}
	if e.newKey != "" {
		fields = append(fields, zap.String("new_key", e.newKey))
	}
	if len(e.changed) > 0 {
		fields = append(fields, zap.Strings("changed", e.changed))
	}
	if e.revision > 0 {
		fields = append(fields, zap.Int("revision", e.revision))
	}
	if e.version > 0 && problem == nil {
		fields = append(fields, zap.Uint64("version", e.version))
	}
	if e.reason != "" {
		fields = append(fields, zap.String("reason", e.reason))
	}
	log.Info(strings.ReplaceAll(e.action, ".", " "), fields...)
}

// outcome is done, unchanged, refused (it was against a rule), or failed (nothing was wrong
// with it).
func (e *entry) outcome(problem *ProblemDetails) string {
	switch {
	case problem != nil && problem.Status >= 500:
		return "failed"
	case problem != nil:
		return "refused"
	case e.same:
		return "unchanged"
	}
	return "done"
}
