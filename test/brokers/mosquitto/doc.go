// Package mosquitto runs one Eclipse Mosquitto, an MQTT broker, as a process on loopback.
// It knows nothing of tests; see the package above for that.
package mosquitto
