// Package brokers gives tests real brokers and bad networks: Apache Kafka, RabbitMQ and
// Mosquitto, each as a shared one that a script keeps (scripts/kafka.sh, rabbitmq.sh,
// mosquitto.sh) and as private ones that a test may kill and restart; Redis, which is no broker
// but keeps what the nodes of a cluster share, as private ones alone; clients that share no
// code with the gateway (kcat, mosquitto_pub and mosquitto_sub, RabbitMQ's management API); and a TCP proxy that
// misbehaves on demand.
//
// Where a broker can't be had a test fails and says how to get it. Only when
// MESSAGE_API_NO_KAFKA=1, MESSAGE_API_NO_RABBITMQ=1, MESSAGE_API_NO_MOSQUITTO=1 or
// MESSAGE_API_NO_REDIS=1 is set, as scripts/test.sh does for the unit tests and for what can't
// be installed, is it skipped, and the summary of the run says so.
package brokers
