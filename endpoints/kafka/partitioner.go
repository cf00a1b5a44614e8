package kafka

// murmur2 is the hash by which Kafka's Java client places keyed messages.
func murmur2(data []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}

// partitionOf is where a keyed message goes: the same place as with Kafka's Java client.
func partitionOf(key []byte, partitions int) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(partitions))
}

// stickBytes is how much keyless data goes to one busy partition before the next one
// gets its share.
const stickBytes = 32 << 10

// sticky chooses partitions for messages without a key. While the chosen partition's
// lane is busy, messages gather there, because what gathers travels in one request; once
// it had its share, or when it is idle anyway, the next partition's turn has come.
type sticky struct {
	current int32
	bytes   int
}

// next returns the partition for a message of the given size. busy tells whether a
// request of the partition's lane is under way, usable whether it has a leader.
func (s *sticky) next(size, partitions int, busy, usable func(int32) bool) int32 {
	if int(s.current) < partitions && s.bytes < stickBytes && busy(s.current) && usable(s.current) {
		s.bytes += size
		return s.current
	}
	s.bytes = size
	for i := range int32(partitions) {
		if p := (s.current + 1 + i) % int32(partitions); usable(p) {
			s.current = p
			return p
		}
	}
	s.current = (s.current + 1) % int32(partitions)
	return s.current
}
