package websocket

import (
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// settlement is what a client said of some messages.
type settlement struct {
	how  message.Settlement
	ref  string
	seqs []uint64
	upTo uint64 // all up to it, when not 0
}

// outstanding are the numbers of the messages that the client has and has not settled, in
// ascending order. The feed's window bounds how many there are.
type outstanding struct {
	seqs []uint64
	head int // where the first is: clients settle mostly from the front, which moves nothing
}

// add notes count messages from first on.
func (o *outstanding) add(first uint64, count int) {
	if o.head > 0 && len(o.seqs)+count > cap(o.seqs) {
		o.seqs = o.seqs[:copy(o.seqs, o.seqs[o.head:])]
		o.head = 0
	}
	for i := range uint64(count) {
		o.seqs = append(o.seqs, first+i)
	}
}

// take removes what s settles and appends it to known. Numbers that are not outstanding
// are returned as unknown.
func (o *outstanding) take(known []uint64, s *settlement) (_, unknown []uint64) {
	if s.upTo > 0 {
		n, found := slices.BinarySearch(o.seqs[o.head:], s.upTo)
		if found {
			n++
		}
		known = append(known, o.seqs[o.head:o.head+n]...)
		o.head += n
		return known, nil
	}
	for _, seq := range s.seqs {
		i, found := slices.BinarySearch(o.seqs[o.head:], seq)
		if !found {
			unknown = append(unknown, seq)
			continue
		}
		if i == 0 {
			o.head++
		} else {
			o.seqs = slices.Delete(o.seqs, o.head+i, o.head+i+1)
		}
		known = append(known, seq)
	}
	return known, unknown
}

// settle hands to the feed what the client has settled since the last call, with one
// call for all that stand together and say the same. It runs in the writer's goroutine,
// because the feed belongs to it.
func (s *session) settle(list []settlement) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].how == list[0].how {
			n++
		}
		s.settleAlike(list[:n])
		list = list[n:]
	}
}

func (s *session) settleAlike(list []settlement) {
	var known []uint64
	for i := range list {
		var unknown []uint64
		if known, unknown = s.open.take(known, &list[i]); len(unknown) > 0 {
			s.own = appendError(s.own, list[i].ref, unknownNumbers(unknown))
		}
	}
	if len(known) == 0 {
		return
	}
	err := s.feed.Settle(s.ctx, list[0].how, known...)
	switch {
	case err == nil:
		return
	case errors.Is(err, message.ErrStale):
		s.own = appendError(s.own, list[0].ref, "the broker has taken messages back after its connection was lost: "+
			"they may come again")
	case message.KindOf(err) == message.BadInput:
		s.own = appendError(s.own, list[0].ref, clientDetail(err))
	default:
		s.gw.Logger().Warn("settling failed", zap.Int("messages", len(known)), zap.Error(err))
		s.own = appendError(s.own, list[0].ref, "the settlement is not known to be in force, and messages may come again: "+
			clientDetail(err))
	}
}

// clientDetail is what a client may know of an error.
func clientDetail(err error) string {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e.Detail
	}
	return "the gateway failed; its log says why"
}

func unknownNumbers(unknown []uint64) string {
	const shown = 16
	if len(unknown) > shown {
		return fmt.Sprintf("not outstanding in this session: %d and %d more", unknown[:shown], len(unknown)-shown)
	}
	return fmt.Sprintf("not outstanding in this session: %d", unknown)
}
