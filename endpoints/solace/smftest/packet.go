package smftest

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Delivery modes, as parameter 10 has them. Direct messages have none.
const modePersistent = 1

// packet is a message on its way through the broker. It is passed on as it came, but for
// what belongs to the flow that it came by. It does not change once it is made.
type packet struct {
	flags, class byte
	topic        string
	params       []byte // what goes on to consumers
	body         []byte
	guaranteed   bool
	mode         byte
	ttl          time.Duration
}

// inbound is what belongs to the publisher's flow.
type inbound struct {
	flow         uint32
	id, previous uint64
	ackSoon      bool
}

// newPacket takes a frame over, with its bytes.
func newPacket(f frame) (*packet, inbound, error) {
	p := &packet{
		flags: f.flags & (flagEliding | flagDMQEligible), class: f.class,
		guaranteed: f.flags&flagGuaranteed != 0, params: f.params[:0], body: f.body,
	}
	var in inbound
	for rest := f.params; ; {
		var one param
		var err error
		if one, rest, err = nextParam(rest); err != nil {
			return nil, in, err
		} else if one.raw == nil {
			break
		}
		if p.note(one, &in) {
			p.params = append(p.params, one.raw...) // never beyond what was read
		}
	}
	if p.topic == "" {
		return nil, in, fmt.Errorf("%w: a message without a topic", errMalformed)
	}
	return p, in, nil
}

// note takes in one parameter, and says whether it goes on to consumers.
func (p *packet) note(one param, in *inbound) (keep bool) {
	if one.light {
		in.ackSoon = in.ackSoon || one.kind == lightAckSoon
		return one.kind != lightTag && one.kind != lightAckSoon
	}
	switch one.kind {
	case paramTopic:
		p.topic = text(one.value)
		return true
	case paramMode:
		p.mode = byte(number(one.value))
	case paramTTL:
		p.ttl = time.Duration(min(number(one.value), uint64(maxTTL/time.Millisecond))) * time.Millisecond
	case paramFlow:
		in.flow = uint32(number(one.value))
	case paramID:
		in.id = number(one.value)
	case paramPrevious:
		in.previous = number(one.value)
	case paramPublisher, paramRedelivered:
	default:
		return true
	}
	return false
}

// maxTTL is as long as anything can live.
const maxTTL = 1 << 62

// delivery is what belongs to the consumer's flow.
type delivery struct {
	flow         uint32
	id, previous uint64
	redelivered  bool
}

// appendDirect appends the packet as a direct message. discarded tells the client that
// messages before it were thrown away.
func (p *packet) appendDirect(b []byte, discarded bool) []byte {
	flags := p.flags
	if discarded {
		flags |= flagDiscarded
	}
	start := len(b)
	b = beginFrame(b, flags, protoMessage, p.class, 255)
	return p.appendRest(b, start)
}

// appendGuaranteed appends the packet as a message of a flow.
func (p *packet) appendGuaranteed(b []byte, d delivery) []byte {
	start := len(b)
	b = beginFrame(b, p.flags|flagGuaranteed, protoMessage, p.class, 255)
	b = append(b, paramMode, 3, p.mode)
	b = append64(b, paramID, d.id)
	b = append64(b, paramPrevious, d.previous)
	b = append32(b, paramFlow, d.flow)
	if d.redelivered {
		b = append(b, paramRedelivered, 2)
	}
	return p.appendRest(b, start)
}

func (p *packet) appendRest(b []byte, start int) []byte {
	b = append(b, p.params...)
	endHeader(b, start)
	b = append(b, p.body...)
	endFrame(b, start)
	return b
}

// Kinds of parts that the summary of a body knows.
const (
	partPayload  = 2
	partMetadata = 4
)

// appendSummary appends the parameter that tells where in the body payload and metadata
// are. They follow each other in this order.
func appendSummary(b []byte, payload, metadata int) []byte {
	var elements []byte
	for _, part := range []struct{ kind, size int }{{partPayload, payload}, {partMetadata, metadata}} {
		if part.size > 0 {
			size := binary.BigEndian.AppendUint32(nil, uint32(part.size))
			for len(size) > 1 && size[0] == 0 {
				size = size[1:]
			}
			elements = append(elements, byte(part.kind<<4|(len(size)+1)))
			elements = append(elements, size...)
		}
	}
	return appendParam(b, 0x80|paramSummary, elements...)
}

// parts splits a body by its summary; without one all of it is payload.
func parts(summary, body []byte) (payload, metadata []byte, err error) {
	if summary == nil {
		return body, nil, nil
	}
	for len(summary) > 0 {
		n := int(summary[0] & 0x0f)
		if n < 1 || n > len(summary) {
			return nil, nil, fmt.Errorf("%w: summary %x", errMalformed, summary)
		}
		size := number(summary[1:n])
		if size > uint64(len(body)) {
			return nil, nil, fmt.Errorf("%w: a part of %d bytes in a body of %d", errMalformed, size, len(body))
		}
		switch summary[0] >> 4 {
		case partPayload:
			payload = body[:size]
		case partMetadata:
			metadata = body[:size]
		}
		summary, body = summary[n:], body[size:]
	}
	return payload, metadata, nil
}
