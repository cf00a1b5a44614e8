package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

func (s *Server) routes() []route {
	return slices.Concat(s.apiRoutes(), s.planRoutes(), s.applicationRoutes(), s.subscriptionRoutes(), s.deliveryRoutes(), s.keyRoutes(), s.nodeRoutes())
}

func (s *Server) apiRoutes() []route {
	const one = "apis/{id}"
	return append([]route{
		{method: http.MethodGet, pattern: "apis", query: append([]string{"visible_to", "group"}, pages...), handle: s.listAPIs},
		{method: http.MethodGet, pattern: one, handle: s.getAPI},
		{method: http.MethodPut, pattern: one, action: "api.save", kind: "api", query: []string{"deploy", "dry_run"}, handle: s.putAPI},
		{method: http.MethodDelete, pattern: one, action: "api.delete", kind: "api", handle: s.deleteAPI},
		{method: http.MethodPut, pattern: one + "/members", action: "api.members", kind: "api", handle: s.putMembers},
	}, s.apiActions(one)...)
}

// apiActions are the actions that take nothing but a reason.
func (s *Server) apiActions(one string) []route {
	actions := []struct {
		name    string
		act     apiAction
		changes string
	}{
		{"deploy", (*lifecycle.Registry).Deploy, "deployed"},
		{"start", (*lifecycle.Registry).Start, "started"},
		{"stop", (*lifecycle.Registry).Stop, "started"},
		{"publish", (*lifecycle.Registry).Publish, "published"},
		{"unpublish", (*lifecycle.Registry).Unpublish, "published"},
		{"make_public", (*lifecycle.Registry).MakePublic, "public"},
		{"make_private", (*lifecycle.Registry).MakePrivate, "public"},
		{"deprecate", (*lifecycle.Registry).Deprecate, "deprecated"},
	}
	var routes []route
	for _, a := range actions {
		routes = append(routes, route{
			method: http.MethodPost, pattern: one + "/" + a.name, action: "api." + a.name, kind: "api",
			handle: func(q *request) (reply, error) { return s.actAPI(q, a.act, a.changes) },
		})
	}
	return routes
}

type apiAction func(r *lifecycle.Registry, ctx context.Context, by, id string, version uint64) (lifecycle.API, error)

// firstWrite is held while a version 0 is compared and replaced. The registry can't do it:
// there 0 is any version.
var firstWrite sync.Mutex

// api prepares a change of an API: it reads If-Match, and returns what there is now, and what
// to call when it is done.
func (s *Server) api(q *request) (before lifecycle.API, version uint64, done func(), err error) {
	done = func() {}
	expected, err := ifMatch(q.Request)
	if err != nil {
		return before, 0, done, err
	}
	if expected.exact && expected.version == 0 {
		firstWrite.Lock()
		done = firstWrite.Unlock
	}
	id := q.PathValue("id")
	before, there := s.Lifecycle.Get(id)
	return before, expected.version, done, expected.check("API "+clip(id), before.Version, there)
}

// changed notes in the audit log what came out.
func (q *request) changed(before, after uint64, names ...string) {
	q.audit.changed, q.audit.version, q.audit.same = names, after, before == after
}

func (s *Server) listAPIs(q *request) (reply, error) {
	w, err := readWindow(q.Request)
	if err != nil {
		return reply{}, err
	}
	query := q.URL.Query()
	apis := s.Lifecycle.List
	if query.Has("visible_to") || query.Has("group") {
		apis = func() []lifecycle.API { return s.Lifecycle.Catalogue(query.Get("visible_to"), query["group"]) }
	}
	id := func(a lifecycle.API) string { return a.ID }
	page := pageOf(w, sortedAfter(w, apis(), id), id)
	return reply{body: Page[API]{Next: page.Next, Items: convertEach(page.Items, func(a lifecycle.API) API { return s.show(a, false) })}}, nil
}

func (s *Server) getAPI(q *request) (reply, error) {
	a, ok := s.Lifecycle.Get(q.PathValue("id"))
	if !ok {
		return reply{}, noSuch("message API", q.PathValue("id"))
	}
	return s.apiReply(a), nil
}

func noSuch(kind, id string) error {
	return refuse(http.StatusNotFound, NotFound, "there is no %s %q", kind, clip(id))
}

func (s *Server) apiReply(a lifecycle.API) reply {
	shown := s.show(a, true)
	return reply{body: shown, etag: etagWith(a.Version, shown)}
}

func (s *Server) putAPI(q *request) (reply, error) {
	save, dry, err := readSave(q)
	if err != nil {
		return reply{}, err
	}
	definition, err := readDefinition(q)
	if err != nil {
		return reply{}, err
	}
	before, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return reply{}, err
	}
	save.Version = version
	after, err := s.Lifecycle.Save(q.ctx, q.by, q.PathValue("id"), definition, save)
	if err != nil {
		return reply{}, err
	}
	if dry {
		return reply{body: dryAnswer(after)}, nil
	}
	q.changed(before.Version, after.Version, savedParts(save.Deploy)...)
	q.audit.revision = revisionOf(after.Saved)
	answer := s.apiReply(after)
	if before.ID == "" {
		answer.status, answer.location = http.StatusCreated, location("apis", after.ID)
	}
	return answer, nil
}

func savedParts(deploy bool) []string {
	if deploy {
		return []string{"saved", "deployed"}
	}
	return []string{"saved"}
}

func revisionOf(r *lifecycle.Revision) int {
	if r == nil {
		return 0
	}
	return r.Number
}

// readSave reads how a definition is to be saved. A dry run changes nothing, and so is not
// in the audit log.
func readSave(q *request) (save lifecycle.Save, dry bool, err error) {
	if dry, err = flag(q.Request, "dry_run"); err != nil {
		return save, false, err
	}
	if dry {
		q.audit = nil
	}
	if save.Deploy, err = flag(q.Request, "deploy"); err != nil {
		return save, false, err
	}
	if save.CreateOnly, err = ifNoneMatchAny(q.Request); err != nil {
		return save, false, err
	}
	save.DryRun = dry
	return save, dry, nil
}

// readDefinition reads a definition, which says what it wants by itself: only JSON is
// checked here.
func readDefinition(q *request) (json.RawMessage, error) {
	var definition json.RawMessage
	if err := readBody(q.w, q.Request, &definition, false); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(bytes.TrimSpace(definition), []byte("{")) {
		return nil, invalidBody("the body must be a JSON object, as it would stand in the configuration")
	}
	return definition, nil
}

func dryAnswer(a lifecycle.API) Dry {
	return Dry{
		Valid: true, Definition: a.Saved.Definition, Paths: append([]string{}, a.Saved.Paths...),
		Plans: convertEach(a.Saved.Plans, func(p lifecycle.Plan) Plan {
			stage := lifecycle.Published
			if s, ok := a.Stages[p.Name]; ok {
				stage = s
			}
			return Plan{API: a.ID, Name: p.Name, Kind: p.Kind, Stage: string(stage), Saved: true, ETag: etagOf(a.Version)}
		}),
	}
}

func (s *Server) deleteAPI(q *request) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	_, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return reply{}, err
	}
	last, err := s.Lifecycle.Delete(q.ctx, q.by, q.PathValue("id"), version)
	if err != nil {
		return reply{}, err
	}
	q.audit.revision = revisionOf(last.Saved)
	return reply{}, nil
}

func (s *Server) actAPI(q *request, act apiAction, changes string) (reply, error) {
	if err := q.readReason(); err != nil {
		return reply{}, err
	}
	before, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return reply{}, err
	}
	after, err := act(s.Lifecycle, q.ctx, q.by, q.PathValue("id"), version)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, changes)
	if changes == "deployed" {
		q.audit.revision = revisionOf(after.Deployed)
	}
	return s.apiReply(after), nil
}

// maxReason bounds a reason, in bytes.
const maxReason = 1024

// readReason reads the body of an action. The reason is in the audit log, whatever else
// becomes of it.
func (q *request) readReason() error {
	var body Reason
	if err := readBody(q.w, q.Request, &body, true); err != nil {
		return err
	}
	return q.giveReason(body.Reason)
}

func (q *request) giveReason(reason string) error {
	if len(reason) > maxReason {
		problem := invalidBody("the reason is too long")
		problem.Problems = []Problem{{Path: "reason", Detail: fmt.Sprintf("it has %d bytes; at most %d", len(reason), maxReason)}}
		return problem
	}
	q.audit.reason = reason
	return nil
}

func (s *Server) putMembers(q *request) (reply, error) {
	var body Members
	if err := readBody(q.w, q.Request, &body, false); err != nil {
		return reply{}, err
	}
	if body.Members == nil {
		problem := invalidBody("the body is not what this request takes")
		problem.Problems = []Problem{{Path: "members", Detail: "it is missing; an empty list means nobody"}}
		return reply{}, problem
	}
	before, version, done, err := s.api(q)
	defer done()
	if err != nil {
		return reply{}, err
	}
	after, err := s.Lifecycle.SetMembers(q.ctx, q.by, q.PathValue("id"), version, body.Members)
	if err != nil {
		return reply{}, err
	}
	q.changed(before.Version, after.Version, "members")
	return s.apiReply(after), nil
}
