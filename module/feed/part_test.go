package feed_test

import (
	"strconv"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

// A session that has read a part of what came at once, and then falls out of the log, gets the
// rest of that part, a gap, and goes on. (Once it waited for ever: the link that it stood
// before had been cut.)
func TestFallingOutInTheMiddle(t *testing.T) {
	h := newHistory()
	log := feed.NewLog(h.open(-1), 64<<10)
	defer closeLog(t, log)
	slow, fast := newClient(t), newClient(t)
	slow.feed, fast.feed = log.Follow(slow.options(), nil), log.Follow(fast.options(), nil)
	defer slow.close()
	defer fast.close()
	h.add(fat(0), fat(1), fat(2), fat(3))
	fast.read(4)
	slow.read(2)
	for i := 4; i < 500; i++ {
		h.add(fat(i))
		fast.read(1)
	}
	got := slow.read(20)
	if len(slow.gaps) != 1 || slow.gaps[0] != message.GapSlow {
		t.Errorf("gaps %v", slow.gaps)
	}
	if got[0][:4] != "0002" || got[1][:4] != "0003" {
		t.Errorf("the rest of the part is %s, %s", got[0][:4], got[1][:4])
	}
	if n, err := strconv.Atoi(got[2][:4]); err != nil || n < 400 {
		t.Errorf("goes on at %s", got[2][:4])
	}
}
