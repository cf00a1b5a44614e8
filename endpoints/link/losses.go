package link

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Losses tells of messages that nobody waits for and that are not stored, once a second at
// most. It is safe for concurrent use.
type Losses struct {
	logger *zap.Logger
	text   string
	count  atomic.Int64
	told   atomic.Int64 // Unix nanoseconds
}

// NewLosses makes a Losses whose entries in the log say text.
func NewLosses(logger *zap.Logger, text string) *Losses { return &Losses{logger: logger, text: text} }

// Note counts n lost messages. The fields stand in the log beside the number so far.
func (l *Losses) Note(n int, err error, fields ...zap.Field) {
	count := l.count.Add(int64(n))
	now, told := time.Now().UnixNano(), l.told.Load()
	if now-told < int64(time.Second) || !l.told.CompareAndSwap(told, now) {
		return
	}
	l.logger.Warn(l.text, append(fields, zap.Int64("messages_so_far", count), zap.Error(err))...)
}

// Count is how many messages were lost so far.
func (l *Losses) Count() int64 { return l.count.Load() }
