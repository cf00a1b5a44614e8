package brokers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// kcatTimeout bounds one run of kcat.
const kcatTimeout = 2 * time.Minute

// KcatRecord is a record as kcat has read it: byte for byte, by code that is not ours.
type KcatRecord struct {
	Partition int
	Offset    int64
	Time      time.Time
	// Key and Value are nil when they are null.
	Key, Value []byte
	// Headers are kcat's own form: name=value,name=value.
	Headers string
}

// KcatProduce writes to a topic with kcat. input is what kcat reads: by default a record
// for each line. args are kcat's, as "-K:" for keys or "-H" "name=value" for headers.
func KcatProduce(t testing.TB, addr, topic string, input []byte, args ...string) {
	t.Helper()
	// Everything is acknowledged, or kcat fails; and in order, also when the leader of a new
	// topic has to be asked twice.
	all := append([]string{"-P", "-b", addr, "-t", topic, "-X", "acks=all", "-X", "enable.idempotence=true"}, args...)
	kcat(t, bytes.NewReader(input), all...)
}

// KcatConsume reads with kcat all that a topic holds now. args are kcat's, as "-p" "0" for
// one partition, "-o" "5" for another beginning, or -X options for login.
func KcatConsume(t testing.TB, addr, topic string, args ...string) []KcatRecord {
	t.Helper()
	all := append([]string{"-C", "-q", "-e", "-b", addr, "-t", topic, "-o", "beginning", "-f", kcatFormat}, args...)
	records, err := parseKcat(bufio.NewReader(bytes.NewReader(kcat(t, nil, all...))))
	if err != nil {
		t.Fatalf("reading kcat's output: %v", err)
	}
	return records
}

func kcat(t testing.TB, input io.Reader, args ...string) []byte {
	t.Helper()
	program, err := exec.LookPath("kcat")
	if err != nil {
		missing(t, apacheKafka, "kcat is not installed (apt-get install kcat)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), kcatTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = input
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kcat %s: %v\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), stderr.Bytes())
	}
	return stdout.Bytes()
}

// kcatFormat is partition, offset, milliseconds, length of key, value and headers, a line
// end, and those three as they are. A length of -1 is null. kcat has no length of the
// headers, so that their end is a line end: names and values must not hold one.
const kcatFormat = `%p %o %T %K %S\n%k%s%h\n`

func parseKcat(r *bufio.Reader) ([]KcatRecord, error) {
	var records []KcatRecord
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		record, err := parseKcatRecord(strings.Fields(line), r)
		if err != nil {
			return nil, fmt.Errorf("after %q: %w", line, err)
		}
		records = append(records, record)
	}
}

func parseKcatRecord(fields []string, r *bufio.Reader) (KcatRecord, error) {
	var numbers [5]int64
	if len(fields) != len(numbers) {
		return KcatRecord{}, fmt.Errorf("%d fields and not %d", len(fields), len(numbers))
	}
	for i, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return KcatRecord{}, err
		}
		numbers[i] = n
	}
	record := KcatRecord{Partition: int(numbers[0]), Offset: numbers[1], Time: time.UnixMilli(numbers[2])}
	var err error
	if record.Key, err = readBytes(r, numbers[3]); err != nil {
		return KcatRecord{}, err
	}
	if record.Value, err = readBytes(r, numbers[4]); err != nil {
		return KcatRecord{}, err
	}
	record.Headers, err = r.ReadString('\n')
	record.Headers = strings.TrimSuffix(record.Headers, "\n")
	return record, err
}

func readBytes(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return nil, nil
	}
	b := make([]byte, length)
	_, err := io.ReadFull(r, b)
	return b, err
}
