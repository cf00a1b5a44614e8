package mqtt5

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/eclipse/paho.golang/packets"
)

// published takes in a message from a client.
func (c *peerConn) published(v *packets.Publish) (stop bool) {
	p := c.peer
	if v.QoS > 0 {
		limit := 0xffff
		if r := p.connack.ReceiveMaximum; r != nil {
			limit = int(*r)
		}
		if c.unread++; c.unread > limit {
			p.wrong(fmt.Sprintf("%d messages under way, with a Receive Maximum of %d", c.unread, limit))
			c.disconnect(packets.DisconnectReceiveMaximumExceeded)
			return true
		}
	}
	if m := p.connack.MaximumQOS; m != nil && v.QoS > *m {
		p.wrong("more than the Maximum QoS")
	}
	if m := p.connack.RetainAvailable; m != nil && *m == 0 && v.Retain {
		p.wrong("a retained message for a server that has none")
	}
	if v.Duplicate {
		p.wrong("a message is sent again")
	}
	reason, answer := byte(0), true
	if p.puback != nil {
		reason, answer = p.puback(v)
	}
	if reason < 0x80 {
		if got := p.publish(v); got == 0 && reason == 0 {
			reason = packets.PubackNoMatchingSubscribers
		}
	}
	if !answer {
		return false
	}
	properties := &packets.Properties{}
	if reason >= 0x80 {
		properties.ReasonString = "the test says no"
	}
	switch v.QoS {
	case 1:
		c.unread--
		c.write(&packets.Puback{PacketID: v.PacketID, ReasonCode: reason, Properties: properties})
	case 2:
		if reason >= 0x80 {
			c.unread--
		} else {
			c.session.receives[v.PacketID] = true
		}
		c.write(&packets.Pubrec{PacketID: v.PacketID, ReasonCode: reason, Properties: properties})
	}
	return false
}

// publish gives a message to all whom it concerns, and returns how many these are.
func (p *peer) publish(v *packets.Publish) (receivers int) {
	if v.Retain {
		p.retained[v.Topic] = v
		if len(v.Payload) == 0 {
			delete(p.retained, v.Topic)
		}
	}
	shares := make(map[string][]*peerSession)
	for _, id := range slices.Sorted(maps.Keys(p.sessions)) {
		s := p.sessions[id]
		for f, opt := range s.filters {
			share, filter, shared := cutShare(f)
			switch {
			case !matches(filter, v.Topic):
			case shared:
				shares[share+"/"+filter] = append(shares[share+"/"+filter], s)
			default:
				receivers++
				s.enqueue(v, opt, v.Retain && opt.RetainAsPublished)
			}
		}
	}
	for key, members := range shares {
		receivers++
		connected := slices.DeleteFunc(slices.Clone(members), func(s *peerSession) bool { return s.conn == nil })
		if len(connected) > 0 && !p.offline {
			members = connected
		}
		s := members[p.turns[key]%len(members)]
		p.turns[key]++
		s.enqueue(v, s.filters["$share/"+key], false)
	}
	return receivers
}

func cutShare(f string) (share, filter string, shared bool) {
	rest, shared := strings.CutPrefix(f, "$share/")
	if !shared {
		return "", f, false
	}
	share, filter, _ = strings.Cut(rest, "/")
	return share, filter, true
}

func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

func (s *peerSession) enqueue(v *packets.Publish, opt packets.SubOptions, retain bool) {
	m := *v
	m.QoS, m.PacketID, m.Duplicate, m.Retain = min(v.QoS, opt.QoS), 0, false, retain
	if m.QoS == 0 && s.conn == nil {
		return
	}
	s.queue = append(s.queue, &m)
	if s.conn != nil {
		s.conn.deliver()
	}
}

// deliver sends what the client's window allows.
func (c *peerConn) deliver() {
	s := c.session
	for len(s.queue) > 0 {
		m := s.queue[0]
		if m.QoS > 0 && len(s.inflight)+len(s.released) >= c.window {
			return
		}
		s.queue = s.queue[1:]
		if m.QoS > 0 {
			for m.PacketID == 0 || !m.Duplicate && s.isUsed(m.PacketID) {
				s.lastID++
				m.PacketID = s.lastID
			}
			s.inflight = append(s.inflight, m)
		}
		c.write(m)
	}
}

func (s *peerSession) isUsed(id uint16) bool {
	used := func(m *packets.Publish) bool { return m.PacketID == id }
	return s.released[id] || slices.ContainsFunc(s.inflight, used) ||
		slices.ContainsFunc(s.queue, func(m *packets.Publish) bool { return m.Duplicate && used(m) })
}

// acknowledged takes a PUBACK or PUBREC, which must come in the order of the messages.
func (c *peerConn) acknowledged(id uint16, qos byte) {
	s := c.session
	of := slices.DeleteFunc(slices.Clone(s.inflight), func(m *packets.Publish) bool { return m.QoS != qos })
	i := slices.IndexFunc(of, func(m *packets.Publish) bool { return m.PacketID == id })
	switch {
	case i < 0 && s.released[id]:
		return // the client says again what it has said
	case i < 0:
		c.peer.wrong(fmt.Sprintf("an acknowledgement of %d, which is not under way", id))
		return
	case i > 0:
		c.peer.wrong(fmt.Sprintf("an acknowledgement of %d before that of %d", id, of[0].PacketID))
	}
	s.inflight = slices.DeleteFunc(s.inflight, func(m *packets.Publish) bool { return m == of[i] })
	if qos == 1 {
		c.deliver()
	}
}

func (c *peerConn) subscribed(v *packets.Subscribe) {
	p, s := c.peer, c.session
	ack := &packets.Suback{PacketID: v.PacketID, Properties: &packets.Properties{}}
	var fresh []packets.SubOptions
	for _, opt := range v.Subscriptions {
		code := opt.QoS
		if m := p.connack.MaximumQOS; m != nil {
			code = min(code, *m)
		}
		if no := p.connack.SharedSubAvailable; no != nil && *no == 0 && strings.HasPrefix(opt.Topic, "$share/") {
			p.wrong("a shared subscription at a server that has none")
		}
		if p.suback != nil {
			code = p.suback(opt.Topic)
		}
		ack.Reasons = append(ack.Reasons, code)
		if code >= 0x80 {
			continue
		}
		s.filters[opt.Topic] = opt
		fresh = append(fresh, opt)
	}
	c.write(ack)
	for _, opt := range fresh {
		if strings.HasPrefix(opt.Topic, "$share/") || opt.RetainHandling != 0 {
			continue
		}
		for topic, m := range p.retained {
			if matches(opt.Topic, topic) {
				s.enqueue(m, opt, true)
			}
		}
	}
}

// ids are the sessions that the peer has, without those of its own test clients.
func (p *peer) ids() (ids []string) {
	p.with(func() {
		for id := range p.sessions {
			if strings.HasPrefix(id, "message-api-") {
				ids = append(ids, id)
			}
		}
	})
	slices.Sort(ids)
	return ids
}

// filtersOf are the subscriptions of a session.
func (p *peer) filtersOf(id string) (filters []string) {
	p.with(func() {
		if s := p.sessions[id]; s != nil {
			filters = slices.Sorted(maps.Keys(s.filters))
		}
	})
	return filters
}
