package admin

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// stall is how long the other side of an export or import may do nothing.
const stall = 60 * time.Second

// unhurried lifts the bounds that Caddy's admin endpoint sets to a whole request (10 s): an
// import takes as long as it takes, as long as it goes on. Where there is nothing to lift, as
// in tests without a connection, nothing is lost.
func (q *request) unhurried() {
	controller := http.NewResponseController(q.w)
	_ = controller.SetReadDeadline(time.Time{})
	_ = controller.SetWriteDeadline(time.Time{})
}

// patientReader has each read wait for so long.
type patientReader struct {
	io.Reader
	controller *http.ResponseController
}

func (r patientReader) Read(p []byte) (int, error) {
	_ = r.controller.SetReadDeadline(time.Now().Add(stall))
	return r.Reader.Read(p)
}

// export writes while it reads. When it fails after the first byte, the connection is cut:
// nobody shall take half of it for a whole.
func (s *Server) export(q *request) (reply, error) {
	if q.Method == http.MethodHead {
		q.audit = nil
	}
	out := &lateWriter{ResponseWriter: q.w, controller: http.NewResponseController(q.w)}
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", `attachment; filename="message-api.json"`)
	err := s.Hooks.Store.Export(q.ctx, out)
	switch {
	case err == nil:
		return reply{status: sent}, nil
	case out.begun:
		q.audit.write(s.audit.Load(), s.problemOf(fmt.Errorf("exporting the store: %w", err), q.Request))
		panic(http.ErrAbortHandler)
	}
	h.Del("Content-Disposition")
	return reply{}, fmt.Errorf("exporting the store: %w", err)
}

// lateWriter knows whether the answer has begun, and has each write wait for so long.
type lateWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
	begun      bool
}

func (w *lateWriter) Write(p []byte) (int, error) {
	w.begun = true
	_ = w.controller.SetWriteDeadline(time.Now().Add(stall))
	return w.ResponseWriter.Write(p)
}

func (s *Server) importAll(q *request) (reply, error) {
	if q.Header.Get("Content-Type") == "" {
		return reply{}, invalidBody("the body is empty: it must be what an export has given")
	}
	body := patientReader{http.MaxBytesReader(q.w, q.Body, maxImport), http.NewResponseController(q.w)}
	report, err := s.Hooks.Store.Import(q.ctx, body)
	q.unhurried() // the last read has set a deadline
	q.audit.same = report.Added+report.Updated == 0
	q.audit.changed = []string{fmt.Sprintf("%d added", report.Added), fmt.Sprintf("%d updated", report.Updated)}
	if err != nil {
		return reply{}, importProblem(err, report)
	}
	if report.Skipped == nil {
		report.Skipped = []Skipped{}
	}
	return reply{body: report}, nil
}
