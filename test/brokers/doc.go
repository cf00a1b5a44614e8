// Package brokers gives tests real brokers and bad networks: a shared Apache Kafka that
// scripts/kafka.sh keeps, private ones that a test may kill and restart, kcat as a client
// that shares no code with the gateway, and a TCP proxy that misbehaves on demand.
//
// Where a broker can't be had a test fails and says how to get it. Only when
// MESSAGE_API_NO_KAFKA=1 is set, as scripts/test.sh does for the unit tests and when Maven
// can't be reached, is it skipped, and the summary of the run says so.
package brokers
