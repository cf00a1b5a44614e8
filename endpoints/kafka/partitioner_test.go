package kafka

import (
	"math/rand/v2"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
)

// The values are those of Kafka's own UtilsTest.java.
func TestMurmur2IsThatOfJava(t *testing.T) {
	for text, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(text))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestKeyedMessagesGoWhereJavaPutsThem(t *testing.T) {
	balancer := kafkago.Murmur2Balancer{}
	for range 1000 {
		key := make([]byte, rand.IntN(40))
		for i := range key {
			key[i] = byte(rand.Uint32())
		}
		n := 1 + rand.IntN(50)
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		want := balancer.Balance(kafkago.Message{Key: key}, all...)
		if got := partitionOf(key, n); int(got) != want {
			t.Fatalf("key %x of %d partitions goes to %d, want %d", key, n, got, want)
		}
	}
}

func TestStickySpreadsAndGathers(t *testing.T) {
	always := func(int32) bool { return true }
	never := func(int32) bool { return false }
	var s sticky
	seen := make(map[int32]int)
	for range 100 {
		seen[s.next(100, 4, never, always)]++
	}
	for p := range int32(4) {
		if seen[p] != 25 {
			t.Errorf("idle partitions got %v, want 25 each", seen)
			break
		}
	}

	s = sticky{}
	first, run := s.next(1000, 4, always, always), 1
	for s.next(1000, 4, always, always) == first {
		run++
	}
	if run < stickBytes/1000 || run > stickBytes/1000+2 {
		t.Errorf("%d messages of 1000 bytes went to the busy partition, want about %d", run, stickBytes/1000)
	}

	led := func(p int32) bool { return p == 2 }
	for range 5 {
		if p := s.next(10, 4, never, led); p != 2 {
			t.Errorf("chose partition %d, which has no leader", p)
		}
	}
	s.next(10, 4, never, never) // nobody leads: any will do, and the lane waits
}
