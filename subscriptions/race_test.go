//go:build race

package subscriptions

const raceEnabled = true
