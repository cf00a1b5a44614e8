package servicebustest

import (
	"strings"
	"time"
)

// request is a message to $cbs or $management.
type request struct {
	operation  string
	properties map[string]any // application properties
	body       any
	id         []byte // message-id as encoded
	replyTo    string
}

// arg is an entry of the body.
func (r *request) arg(name string) any {
	m, _ := r.body.(map[any]any)
	return m[name]
}

// reply is the answer to a request.
type reply struct {
	status      int32
	condition   string
	description string
	body        any
}

func refusal(e *wireError) reply {
	return reply{status: statusOf(e.condition), condition: e.condition, description: e.description}
}

// statusOf is the status by which the service says a condition.
func statusOf(condition string) int32 {
	switch condition {
	case "amqp:unauthorized-access":
		return 401
	case "amqp:not-found", "com.microsoft:message-not-found":
		return 404
	case "com.microsoft:timeout":
		return 408
	case "com.microsoft:message-lock-lost", "com.microsoft:session-lock-lost":
		return 410
	case "com.microsoft:server-busy":
		return 503
	case "amqp:resource-limit-exceeded":
		return 403
	case "amqp:decode-error", "amqp:invalid-field", "amqp:not-allowed":
		return 400
	case "amqp:not-implemented":
		return 501
	}
	return 500
}

func parseRequest(encoded []byte) (*request, error) {
	m, err := parseMessage(encoded)
	if err != nil {
		return nil, err
	}
	r := &request{properties: map[string]any{}}
	err = m.application.each(func(key string, value, _ []byte) bool {
		d := decoder{buf: value}
		r.properties[key] = d.value()
		return d.err == nil
	})
	if err != nil {
		return nil, err
	}
	r.operation, _ = r.properties["operation"].(string)
	if f, ok := m.propertyFields(); ok {
		if f.present() {
			r.id = f.raw()
		}
		f.skip(3) // user-id, to, subject
		r.replyTo = f.text()
	}
	d := decoder{buf: m.body}
	if d.octet() == 0 && d.err == nil && d.unsigned(d.octet()) == 0x77 {
		r.body = d.value()
	}
	return r, nil
}

// requested handles a message to $cbs or $management, and answers it.
func (l *link) requested(p partial, op Op) {
	l.outcome(p, nil)
	r, err := parseRequest(p.payload)
	if err != nil || p.tooBig {
		l.detach(protocolError("amqp:decode-error", "request cannot be read: %v", err))
		return
	}
	name := ""
	switch {
	case op == OpToken:
		audience, _ := r.properties["name"].(string)
		name = entityPath(audience)
	case strings.HasPrefix(r.operation, "com.microsoft:renew"):
		op = OpRenew
	}
	if l.entity != nil {
		name = l.entity.name
	}
	s := l.session.c.s
	s.perform(&l.lane, op, name, func(f *Fault) {
		switch {
		case l.detached || f.silent():
		case f != nil && f.Condition != "" && !f.Drop:
			if f.Detach {
				l.detach(f.asError())
				return
			}
			l.respond(r, refusal(f.asError()))
		default:
			answer := l.serve(r, s.now())
			if !f.drops(l.session.c) {
				l.respond(r, answer)
			}
		}
	})
}

func (l *link) serve(r *request, now time.Time) reply {
	if l.node == nodeCBS {
		return l.session.c.putToken(r)
	}
	if l.entity.gone {
		return refusal(protocolError("amqp:not-found", "The messaging entity '%s' could not be found.", l.entity.name))
	}
	return l.manage(r, now)
}

// respond sends a reply by the link that the request names, or by the one to the same node in the same session.
func (l *link) respond(r *request, answer reply) {
	var back *link
	for _, other := range l.session.links {
		if other.clientSends || other.detached || other.node != l.node {
			continue
		}
		if other.request.targetAddress == r.replyTo {
			back = other
			break
		}
		back = other
	}
	if back == nil {
		return // the client has closed it
	}
	back.replies = append(back.replies, answer.encode(r))
	back.flushReplies()
}

func (l *link) flushReplies() {
	for len(l.replies) > 0 && l.able() {
		next := l.replies[0]
		l.replies = l.replies[1:]
		l.credit--
		l.deliveryCount++
		tag := l.session.c.s.token()
		l.session.transmit(l, tag[:], true, next)
	}
	l.finishDrain()
}

// encode is the reply as a message. Both spellings of the status are in use; clients look for either.
func (a reply) encode(r *request) []byte {
	b, mark := openComposite(nil, sectionProperties)
	for range 5 {
		b = appendNull(b)
	}
	if r.id == nil {
		b = appendNull(b)
	} else {
		b = append(b, r.id...)
	}
	b = closeCompound(b, mark, 6)
	b, mark = openCompound(append(b, 0x00, 0x53, sectionApplication), 0xd1)
	b = appendInt(appendString(b, "status-code"), a.status)
	b = appendString(appendString(b, "status-description"), a.description)
	b = appendInt(appendString(b, "statusCode"), a.status)
	b = appendString(appendString(b, "statusDescription"), a.description)
	count := 8
	if a.condition != "" {
		b = appendSymbol(appendString(b, "errorCondition"), symbol(a.condition))
		count += 2
	}
	b = closeCompound(b, mark, count)
	return appendValue(append(b, 0x00, 0x53, 0x77), a.body)
}

// putToken asks whether the token is good for its audience.
func (c *conn) putToken(r *request) reply {
	audience, _ := r.properties["name"].(string)
	token, _ := r.body.(string)
	if r.operation != "put-token" || audience == "" {
		return refusal(protocolError("amqp:not-allowed", "put-token with a name is all that $cbs does"))
	}
	if deny := c.s.options.Deny; deny != nil && deny(audience, token) {
		return refusal(protocolError("amqp:unauthorized-access", "InvalidSignature: The token has an invalid signature."))
	}
	c.granted = append(c.granted, entityPath(audience))
	return reply{status: 202, description: "Accepted"}
}

// mayUse tells whether a token was put for the entity, its namespace, or what it belongs to.
func (c *conn) mayUse(path string) bool {
	if c.s.options.Deny == nil {
		return true
	}
	for _, granted := range c.granted {
		if granted == "" || granted == path || strings.HasPrefix(path, granted+"/") {
			return true
		}
	}
	return false
}
