package servicebustest

import (
	"bytes"
	"io"
	"slices"
)

// login exchanges protocol headers and does SASL.
func (c *conn) login() error {
	id, err := c.protocol()
	if err != nil {
		return err
	}
	if id == 3 {
		if err := c.sasl(); err != nil {
			return err
		}
		if id, err = c.protocol(); err != nil {
			return err
		}
	}
	if id != 0 {
		return protocolError("amqp:connection:framing-error", "protocol %d", id)
	}
	return nil
}

// protocol reads a protocol header and answers with the same.
func (c *conn) protocol() (id byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return 0, err
	}
	if !bytes.Equal(head[:4], []byte("AMQP")) || head[5] != 1 || head[4] != 0 && head[4] != 3 {
		_, _ = c.rw.Write([]byte{'A', 'M', 'Q', 'P', 3, 1, 0, 0}) // what we speak; the error below says the rest
		return 0, protocolError("amqp:connection:framing-error", "protocol header %q", head[:])
	}
	_, err = c.rw.Write(head[:])
	return head[4], err
}

// sasl lets everybody in: who may do what is decided by the tokens that come later.
func (c *conn) sasl() error {
	b, start, mark := openFrame(nil, frameSASL, 0, codeMechanisms)
	b, array := openCompound(b, 0xf0)
	b = append(b, 0xb3)
	mechanisms := []string{"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"}
	for _, m := range mechanisms {
		b = append(b, 0, 0, 0, byte(len(m)))
		b = append(b, m...)
	}
	b = closeCompound(b, array, len(mechanisms))
	if _, err := c.rw.Write(closeFrame(b, start, mark, 1, nil)); err != nil {
		return err
	}
	fr := frameReader{r: c.reader}
	f, err := fr.next()
	if err != nil {
		return err
	}
	d := decoder{buf: f.body}
	code, init := d.composite()
	if f.kind != frameSASL || code != codeSASLInit {
		return protocolError("amqp:connection:framing-error", "sasl-init expected")
	}
	result := byte(1) // not authenticated
	if slices.Contains(mechanisms, init.text()) {
		result = 0
	}
	b, start, mark = openFrame(nil, frameSASL, 0, codeOutcome)
	_, err = c.rw.Write(closeFrame(appendUbyte(b, result), start, mark, 1, nil))
	return err
}
