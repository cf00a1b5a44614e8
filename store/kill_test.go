package store

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// The writer that is killed: this test's own program, started again with this in its
// environment.
const (
	childEnv     = "STORE_TEST_CHILD"
	childWorkers = 4
	childRecords = 5 // per worker
)

// childOptions let the children fold the logs of those that were killed before, and make
// snapshots all the time, so that they are killed while they do.
func childOptions(path string) Options {
	tune := fastTuning()
	tune.deadAfter, tune.observe, tune.compactEvery, tune.compactLog = 300*time.Millisecond, 0, 20*time.Millisecond, 8
	return Options{Storage: &certmagic.FileStorage{Path: path}, Interval: 20 * time.Millisecond, tune: tune}
}

// pairOf is what stands in both records of a pair at a version: long enough to be torn.
func pairOf(id string, version uint64) thing {
	return thing{N: int(version), Text: strings.Repeat(fmt.Sprintf("%s:%d,", id, version), 50)}
}

func pairRefs(id string) []Ref { return []Ref{{"left", id}, {"right", id}} }

// child writes pairs of records, and says so after each that was acknowledged.
func child() {
	s, err := Open(context.Background(), childOptions(os.Getenv(childEnv)))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range childWorkers {
		wg.Go(func() {
			for {
				id := fmt.Sprintf("w%dr%d", w, rand.IntN(childRecords))
				if err := childWrite(s, id); err != nil {
					fmt.Println("error", id, err)
				}
			}
		})
	}
	wg.Wait()
}

func childWrite(s *Store, id string) error {
	refs := pairRefs(id)
	var version uint64
	err := s.Update(context.Background(), refs, func(tx *Tx) error {
		old, _ := tx.Get(refs[0])
		version = old.Version + 1
		for _, ref := range refs {
			if err := tx.Put(ref, pairOf(id, version)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		fmt.Printf("ack %s %d\n", id, version)
	}
	return err
}

// A writer is killed again and again, at any moment. Whatever it was told is stored is there,
// and what it was not told is there whole or not at all.
func TestKilledWriter(t *testing.T) {
	kills := 500
	switch {
	case testing.Short():
		kills = 10
	case raceEnabled:
		kills = 20
	}
	path, acked := t.TempDir(), make(map[string]uint64)
	total := 0
	started := time.Now()
	for range kills {
		total += killOnce(t, path, acked)
		// The locks of a killed process end after ten seconds. So long nobody wants to wait here.
		if err := os.RemoveAll(filepath.Join(path, "locks")); err != nil {
			t.Fatal(err)
		}
		verify(t, path, acked)
		if t.Failed() {
			return
		}
	}
	// On a slow disk none of them may have lived long enough to clear up behind the others.
	survive(t, path, func() bool { return len(heads(path)) <= 20+kills/10 })
	verify(t, path, acked)
	snapshots, _ := filepath.Glob(filepath.Join(path, DefaultPrefix, "snapshot", "*", "manifest"))
	nodes := heads(path)
	newest := ""
	for _, one := range snapshots {
		newest = max(newest, filepath.Base(filepath.Dir(one)))
	}
	t.Logf("killed %d times in %v: %d changes were acknowledged, 0 are lost, 0 are torn; %d records; the logs of %d nodes are left of %d",
		kills, time.Since(started).Round(time.Second), total, 2*len(acked), len(nodes), kills)
	if newest == "" || len(nodes) > 20+kills/10 {
		t.Errorf("nothing was folded into a snapshot: %q, %d nodes", newest, len(nodes))
	}
}

// heads are the nodes that have left something.
func heads(path string) []string {
	list, _ := filepath.Glob(filepath.Join(path, DefaultPrefix, "nodes", "*", "head"))
	return list
}

// survive has a node live until it has cleared up.
func survive(t *testing.T, path string, cleared func() bool) {
	t.Helper()
	s, err := Open(t.Context(), childOptions(path))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	for deadline := time.Now().Add(30 * time.Second); !cleared() && time.Now().Before(deadline); {
		if err := childWrite(s, "survivor"); err != nil {
			t.Error(err)
		}
	}
}

// killOnce runs a writer for a while, and returns how many changes it said are stored.
func killOnce(t *testing.T, path string, acked map[string]uint64) (n int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var id string
		var version uint64
		switch line := lines.Text(); {
		case line == "ready":
			timer = time.AfterFunc(rand.N(90*time.Millisecond), func() { _ = cmd.Process.Kill() })
		case strings.HasPrefix(line, "error"):
			t.Error(line)
		default:
			if _, err := fmt.Sscanf(line, "ack %s %d", &id, &version); err != nil {
				t.Errorf("%q: %v", line, err)
			}
			acked[id] = version
			n++
		}
	}
	if timer == nil {
		t.Fatal("the writer did not start")
	}
	_ = cmd.Wait() // it was killed
	return n
}

func verify(t *testing.T, path string, acked map[string]uint64) {
	t.Helper()
	opt := childOptions(path)
	opt.Interval = time.Hour // it looks, and writes nothing
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	for id, want := range acked {
		left, _ := s.Get(pairRefs(id)[0])
		right, _ := s.Get(pairRefs(id)[1])
		if left.Version < want || left.Version > want+1 || left.Version != right.Version {
			t.Errorf("%s: version %d was acknowledged, and there are %d and %d", id, want, left.Version, right.Version)
			continue
		}
		data, _ := json.Marshal(pairOf(id, left.Version))
		if string(left.Data) != string(data) || string(right.Data) != string(data) {
			t.Errorf("%s: not what was written: %s, %s", id, left.Data, right.Data)
		}
		acked[id] = left.Version
	}
	for r := range s.Range("left") { // of pairs that were never acknowledged
		if right, _ := s.Get(Ref{"right", r.ID}); right.Version != r.Version {
			t.Errorf("%s is torn", r.ID)
		}
		acked[r.ID] = r.Version
	}
	if p := s.Problems(); len(p) > 0 {
		t.Errorf("problems: %+v", p)
	}
}
