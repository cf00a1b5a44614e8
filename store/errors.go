package store

import (
	"errors"
	"fmt"
)

// Errors that a change can fail with. Those of the function given to Update come back as
// they are.
var (
	// ErrConflict: the record was changed at the same time, again and again. Nothing was
	// stored.
	ErrConflict = errors.New("the record is being changed at the same time; try again")
	// ErrUnavailable: the storage failed or did not answer in time. Nothing was stored.
	ErrUnavailable = errors.New("the storage is not available; nothing was stored")
	// ErrUncertain: the storage failed or did not answer in time, at a moment that leaves
	// open whether the change is stored. It is found out as soon as the storage answers;
	// until then memory shows the old state.
	ErrUncertain = errors.New("the storage failed, and the change may have been stored or not")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store was closed")
	// ErrInvalid: what was to be stored can't be.
	ErrInvalid = errors.New("invalid record")
)

// fail ties an error of the storage to the one that says what it means.
func fail(meaning, cause error) error { return fmt.Errorf("store: %w: %w", meaning, cause) }
