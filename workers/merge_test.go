package workers

import (
	"encoding/json"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/store"
)

func TestMerge(t *testing.T) {
	ref := refOf("w")
	in := store.Record{Ref: ref, Data: json.RawMessage(`{"owner":"gone","from":"other","failed":true,"cause":"it broke","kept":{"n":1}}`)}
	out, err := Merge(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := decode(out)
	if err != nil || rec.Owner != "" || rec.From != "" || !rec.Failed || rec.Cause != "it broke" || string(rec.Kept) != `{"n":1}` {
		t.Errorf("what is not there: %s %v", out.Data, err)
	}
	if out, err = Merge(&store.Record{Ref: ref, Data: json.RawMessage(`{"owner":"me"}`)}, in); err != nil || string(out.Data) != `{"owner":"me"}` {
		t.Errorf("what is there: %s %v", out.Data, err)
	}
	if out, err = Merge(&store.Record{Ref: ref, Deleted: true}, in); err != nil || string(out.Data) == string(in.Data) {
		t.Errorf("what was removed: %s %v", out.Data, err)
	}
	other := store.Record{Ref: store.Ref{Kind: "api", ID: "w"}, Data: json.RawMessage(`{"owner":"x"}`)}
	if out, err = Merge(nil, other); err != nil || string(out.Data) != string(other.Data) {
		t.Errorf("another kind: %s %v", out.Data, err)
	}
	if _, err = Merge(nil, store.Record{Ref: ref, Data: json.RawMessage(`[]`)}); err == nil {
		t.Error("what can't be read was taken")
	}
}
