// Package kafka runs one Apache Kafka as a process: broker and controller in one (KRaft),
// on loopback, from the jars that pom.xml names. It knows nothing of tests; see the
// package above for that.
package kafka
