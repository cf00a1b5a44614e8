package store

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// maxProblems is how many are kept; beyond, the oldest are forgotten.
const maxProblems = 1000

// Problem is something that is wrong with what is stored, or with the storage.
type Problem struct {
	// Key is the file, the record (kind/id) or "storage".
	Key    string    `json:"key"`
	Detail string    `json:"detail"`
	Since  time.Time `json:"since"`
}

type problems struct {
	log  *zap.Logger
	now  func() time.Time
	mu   sync.Mutex
	held []Problem
}

// report notes a problem, unless it is known, and writes it to the log.
func (p *problems) report(key, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.held {
		if p.held[i].Key == key {
			if p.held[i].Detail != detail {
				p.held[i].Detail = detail
				p.log.Warn("store: "+detail, zap.String("key", key))
			}
			return
		}
	}
	if len(p.held) >= maxProblems {
		p.held = slices.Delete(p.held, 0, 1)
	}
	p.held = append(p.held, Problem{Key: key, Detail: detail, Since: p.now()})
	p.log.Warn("store: "+detail, zap.String("key", key))
}

// solved forgets a problem.
func (p *problems) solved(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.held, func(one Problem) bool { return one.Key == key }); i >= 0 {
		p.held = slices.Delete(p.held, i, i+1)
		p.log.Info("store: solved", zap.String("key", key))
	}
}

// overlap reports that two nodes have written the same version of a record.
func (p *problems) overlap(a, b *Record) {
	if newer(b, a) {
		a, b = b, a
	}
	p.report(a.Ref.String(), fmt.Sprintf("two nodes have written version %d at once: that of node %s (%s) stands, that of node %s (%s) is lost; "+
		"look whether the record is as it should be, and whether the storage's locks work", a.Version,
		a.Node, a.Time.UTC().Format(time.RFC3339Nano), b.Node, b.Time.UTC().Format(time.RFC3339Nano)))
}

func (p *problems) list() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.held)
}
