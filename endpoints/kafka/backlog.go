package kafka

import (
	"context"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Backlog implements message.Backlogger: from what the group has committed to the end of its
// topics, so that offsets which hold no message for anyone count as well.
func (m *member) Backlog(ctx context.Context) (int64, error) {
	_, topics, err := m.c.discover(ctx, m.spec)
	if err != nil {
		return 0, err
	}
	stored, err := m.c.committed(ctx, m.sub.Name)
	if err != nil {
		return 0, err
	}
	all := partitions(topics)
	ends, err := m.c.offsets(ctx, topics, all, latest)
	if err != nil {
		return 0, err
	}
	begins, err := m.c.offsets(ctx, topics, all, earliest)
	if err != nil {
		return 0, err
	}
	var n int64
	for p, end := range ends {
		n += max(end-max(stored[p].offset, begins[p]), 0)
	}
	return n, nil
}

var _ message.Backlogger = (*member)(nil)
