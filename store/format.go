package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// formatVersion is written into every file. A file of a later version is not touched.
const formatVersion = 1

// The bounds of a record.
const (
	maxName   = 512
	maxRecord = 4 << 20
	// batchBytes is how much is appended at a time, unless one change alone is larger: some
	// storages take no values beyond half a megabyte.
	batchBytes = 256 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is wrapped where a file is not what was written.
var errDamaged = errors.New("damaged")

// errLater is for files of a later version of this program.
var errLater = errors.New("was written by a later version of this program")

// fileHeader is the first line of a batch and of a shard. It says where the file belongs, so
// that one in the wrong place is noticed.
type fileHeader struct {
	Format int       `json:"v"`
	Node   string    `json:"node,omitempty"`
	Seq    uint64    `json:"seq,omitempty"`
	Gen    string    `json:"gen,omitempty"`
	Shard  string    `json:"shard,omitempty"`
	Time   time.Time `json:"time,omitzero"`
	Count  int       `json:"n"`
	CRC    string    `json:"crc"`
}

// line is a record in a file.
type line struct {
	Kind    string          `json:"k"`
	ID      string          `json:"i"`
	Version uint64          `json:"v"`
	Node    string          `json:"n"`
	Time    time.Time       `json:"t"`
	Deleted bool            `json:"d,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// appendLine writes a record. Its data is compact and valid JSON already.
func appendLine(buf *bytes.Buffer, r *Record) error {
	enc := json.NewEncoder(buf) // ends with a newline
	enc.SetEscapeHTML(false)
	return enc.Encode(line{Kind: r.Kind, ID: r.ID, Version: r.Version, Node: r.Node, Time: r.Time, Deleted: r.Deleted, Data: r.Data})
}

// encodeFile puts a header before lines.
func encodeFile(h fileHeader, count int, body []byte) ([]byte, error) {
	h.Format, h.Count, h.CRC = formatVersion, count, sum(body)
	head, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return slices.Concat(head, []byte{'\n'}, body), nil
}

func sum(data []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli)) }

// decodeFile reads a batch or shard, whole or not at all. place is what its header must say.
func decodeFile(data []byte, place fileHeader) ([]*Record, error) {
	head, body, _ := bytes.Cut(data, []byte{'\n'})
	var h fileHeader
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("%w: it has no header: %w", errDamaged, err)
	}
	switch {
	case h.Format > formatVersion:
		return nil, errLater
	case h.Node != place.Node || h.Seq != place.Seq || h.Gen != place.Gen || h.Shard != place.Shard:
		return nil, fmt.Errorf("%w: it belongs elsewhere (node %q seq %d gen %q shard %q)", errDamaged, h.Node, h.Seq, h.Gen, h.Shard)
	case h.CRC != sum(body):
		return nil, fmt.Errorf("%w: its checksum is wrong", errDamaged)
	case h.Count < 0 || h.Count > len(body):
		return nil, fmt.Errorf("%w: its header counts %d records", errDamaged, h.Count)
	}
	records := make([]*Record, 0, h.Count)
	names := make(map[string]string)
	for text := range bytes.Lines(body) {
		r, err := decodeLine(text, names)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errDamaged, len(records)+2, err)
		}
		records = append(records, r)
	}
	if len(records) != h.Count {
		return nil, fmt.Errorf("%w: %d of %d records", errDamaged, len(records), h.Count)
	}
	return records, nil
}

func decodeLine(text []byte, names map[string]string) (*Record, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	r := &Record{Ref: Ref{intern(names, l.Kind), l.ID}, Version: l.Version, Node: intern(names, l.Node), Time: l.Time, Deleted: l.Deleted, Data: l.Data}
	if err := r.Ref.validate(); err != nil {
		return nil, err
	}
	if r.Version == 0 || (!r.Deleted && len(r.Data) == 0) {
		return nil, fmt.Errorf("%s has no version or no data", r.Ref)
	}
	return r, nil
}

// intern keeps one copy of strings that stand in very many records.
func intern(names map[string]string, s string) string {
	if known, ok := names[s]; ok {
		return known
	}
	names[s] = s
	return s
}

func (r Ref) validate() error {
	for _, s := range []string{r.Kind, r.ID} {
		if s == "" || len(s) > maxName || !utf8.ValidString(s) {
			return fmt.Errorf("%w: kind and id must be UTF-8 of 1 to %d bytes", ErrInvalid, maxName)
		}
	}
	return nil
}

// head says how far a node's log goes.
type head struct {
	Format int    `json:"v"`
	Seq    uint64 `json:"seq"`
	// Void are the numbers, from and to, of batches that were not stored for certain and are
	// not to be read.
	Void [][2]uint64 `json:"void,omitempty"`
	Time time.Time   `json:"time"`
	// Closed: the node has ended and will write no more.
	Closed bool   `json:"closed,omitempty"`
	Host   string `json:"host,omitempty"`
	// Lease says that the node keeps a lease, and is its TTL in milliseconds.
	Lease int64 `json:"lease,omitempty"`
	// Beat counts the heads, so that each is another one whatever the clock does.
	Beat uint64 `json:"beat,omitempty"`
}

func (h *head) void(seq uint64) bool {
	return slices.ContainsFunc(h.Void, func(v [2]uint64) bool { return v[0] <= seq && seq <= v[1] })
}

func decodeHead(data []byte) (head, error) {
	var h head
	if err := json.Unmarshal(data, &h); err != nil {
		return head{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if h.Format > formatVersion {
		return head{}, errLater
	}
	return h, nil
}

// manifest is what a snapshot consists of.
type manifest struct {
	Format int    `json:"v"`
	Gen    string `json:"gen"`
	// Depth is one more than that of the snapshot that this one was built on.
	Depth uint64 `json:"depth,omitempty"`
	// Vector is how much of each node's log is in the snapshot.
	Vector map[string]uint64 `json:"vector"`
	// Gone is when the files of nodes that ended were removed (Unix seconds).
	Gone map[string]int64 `json:"gone,omitempty"`
	// Shards are, for each shard, which of Gens wrote it last.
	Gens     []string `json:"gens"`
	Shards   []int    `json:"shards"`
	Counters int      `json:"counters,omitempty"` // files with counters, in Gen
	CRC      string   `json:"crc"`
}

func (m *manifest) encode() ([]byte, error) {
	m.Format, m.CRC = formatVersion, ""
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.CRC = sum(data)
	return json.Marshal(m)
}

func decodeManifest(data []byte) (*manifest, error) {
	m := &manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if m.Format > formatVersion {
		return nil, errLater
	}
	said := m.CRC
	if _, err := m.encode(); err != nil || m.CRC != said {
		return nil, fmt.Errorf("%w: its checksum is wrong", errDamaged)
	}
	if n := len(m.Shards); n < 1 || n > slots || n&(n-1) != 0 || slices.Min(m.Shards) < 0 || slices.Max(m.Shards) >= len(m.Gens) {
		return nil, fmt.Errorf("%w: %d shards of %d generations", errDamaged, n, len(m.Gens))
	}
	return m, nil
}

// files are the files of a snapshot, as paths below snapshot/, with what their headers
// must say.
func (m *manifest) files() []fileHeader {
	files := make([]fileHeader, 0, len(m.Shards)+m.Counters)
	for i, gen := range m.Shards {
		files = append(files, fileHeader{Gen: m.Gens[gen], Shard: shardName(i)})
	}
	for i := range m.Counters {
		files = append(files, fileHeader{Gen: m.Gen, Shard: counterShardName(i)})
	}
	return files
}

func shardName(i int) string        { return fmt.Sprintf("%04d", i) }
func counterShardName(i int) string { return fmt.Sprintf("c%06d", i) }
func batchName(seq uint64) string   { return fmt.Sprintf("%016d", seq) }

// genName names a generation: by its time, so that names grow, and its writer.
func genName(at time.Time, node string) string {
	return fmt.Sprintf("%019d-%s", max(at.UnixNano(), 0), node)
}

func isGen(name string) bool {
	at, node, _ := strings.Cut(name, "-")
	return len(at) == 19 && isDigits(at) && isHex(node, 16)
}

// genTime is when a generation was named, or long ago.
func genTime(name string) time.Time {
	var at int64
	if _, err := fmt.Sscanf(name, "%d-", &at); err != nil {
		return time.Time{}
	}
	return time.Unix(0, at)
}

// newNodeID is random. Ids that are not of this form belong to somebody else.
func newNodeID() string {
	var id [8]byte
	rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
