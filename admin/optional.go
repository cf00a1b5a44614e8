package admin

import "encoding/json"

// Optional is a value of a patch. JSON has three things to say about a member: that it is
// absent (Set is false), null (Set, and the zero value) or something.
type Optional[T any] struct {
	Set   bool
	Value T
}

// Some is a value that is there.
func Some[T any](v T) Optional[T] { return Optional[T]{Set: true, Value: v} }

// Null takes a value away.
func Null[T any]() Optional[T] { return Optional[T]{Set: true} }

// IsZero lets omitzero leave out what is not set.
func (o Optional[T]) IsZero() bool { return !o.Set }

// UnmarshalJSON implements json.Unmarshaler. It is not called for what is absent.
func (o *Optional[T]) UnmarshalJSON(text []byte) error {
	var v T
	if err := json.Unmarshal(text, &v); err != nil { // null leaves v as it is
		return err
	}
	*o = Some(v)
	return nil
}

// MarshalJSON implements json.Marshaler. An empty text stays one: it is what the person who
// typed it meant.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if z, ok := any(o.Value).(interface{ IsZero() bool }); ok && z.IsZero() {
		return []byte("null"), nil // a time
	}
	return json.Marshal(o.Value)
}

// pointer is how the registries want a patch: nil leaves a value as it is.
func (o Optional[T]) pointer() *T {
	if !o.Set {
		return nil
	}
	return &o.Value
}
